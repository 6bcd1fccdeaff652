package simulator

import (
	"bytes"
	"context"
	"hash/fnv"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"net"
)

// iconSize is the width and height of an icon in pixels.
const iconSize = 60

// icon draws the icon of an app in a colour that depends on the app's identifier.
func icon(app string) ([]byte, error) {
	h := fnv.New32a()
	h.Write([]byte(app)) // never fails
	sum := h.Sum32()
	palette := color.Palette{color.RGBA{uint8(sum), uint8(sum >> 8), uint8(sum >> 16), 255}}
	img := image.NewPaletted(image.Rect(0, 0, iconSize, iconSize), palette)
	draw.Draw(img, img.Bounds(), image.NewUniform(palette[0]), image.Point{}, draw.Src)
	var b bytes.Buffer
	err := png.Encode(&b, img)
	return b.Bytes(), err
}

// serveSpringBoard serves the part of springboardservices that returns icons.
func (d *Device) serveSpringBoard(_ context.Context, conn net.Conn) {
	d.answerRequests(SpringBoard, conn, "command", func(command string, request map[string]any) ([]map[string]any, bool) {
		switch command {
		case "getIconPNGData":
			app, _ := request["bundleId"].(string)
			b, err := icon(app)
			if err != nil || app == "" {
				return []map[string]any{{"Error": "no such icon"}}, true
			}
			return []map[string]any{{"pngData": b}}, true
		case "getInterfaceOrientation":
			return []map[string]any{{"interfaceOrientation": 1}}, true
		}
		return nil, false
	})
}
