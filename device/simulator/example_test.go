package simulator_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/snap-backup/snap/device"
	"github.com/snap-backup/snap/device/simulator"
)

// A simulated device is attached, and a program finds and describes it.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	anna := simulator.NewDevice(simulator.Spec{Name: "Anna's iPhone", UDID: "00008110-000A1B2C3D4E5F60"})
	usbmuxd := simulator.New()
	usbmuxd.Attach(anna, simulator.USB)
	if err := usbmuxd.Trust(anna); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- usbmuxd.Serve(ctx, listener) }()

	// If USBMUXD_SOCKET_ADDRESS is this address, other programs find the device, too.
	mux, err := device.Open(simulator.Address(listener.Addr()))
	if err != nil {
		log.Fatal(err)
	}
	entries, err := mux.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		info, err := mux.Describe(ctx, e)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s, iOS %s\n", e.UDID, info.Name, info.ProductVersion)
	}
	fmt.Println("violations:", len(anna.Violations()))

	stop()
	<-served
	// Output:
	// 00008110-000A1B2C3D4E5F60: Anna's iPhone, iOS 17.5.1
	// violations: 0
}
