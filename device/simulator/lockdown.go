package simulator

import (
	"bytes"
	"context"
	"errors"
	"net"

	"github.com/snap-backup/snap/device/protocol/plist"
	"github.com/snap-backup/snap/device/simulator/message"
	"github.com/snap-backup/snap/device/simulator/pairing"
)

// session is a connection to lockdownd.
type session struct {
	dev  *Device
	over Transport
	link *Link  // nil in tests
	id   string // SessionID; "" outside of a session
	host pairing.Host
}

// serveLockdown serves a connection to lockdownd.
func (d *Device) serveLockdown(ctx context.Context, raw net.Conn) {
	s := session{dev: d, over: USB}
	if c, ok := raw.(*conn); ok && c.link != nil {
		s.over, s.link = c.link.Transport, c.link
	}
	var stream net.Conn = raw
	var secure *sessionTLS // nil if there is no session
	for {
		request, err := message.Read(stream)
		if err != nil {
			d.framing(Lockdown, err)
			break
		}
		name, _ := request["Request"].(string)
		reply := s.answer(name, request)
		reply["Request"] = name
		if err := message.Write(stream, reply); err != nil {
			break
		}
		switch {
		case name == "StopSession" && reply["Error"] == nil && secure != nil:
			// The host continues without encryption.
			if !secure.end() {
				d.Log(Lockdown, "close", "TLS continues after StopSession")
				d.Violate("lockdown: TLS after the end of the session")
				raw.Close()
				return
			}
			stream, secure = secure.records, nil
		case name == "StartSession" && reply["EnableSessionSSL"] == true:
			conf, err := d.hosts.TLS(s.host, d.tlsMax())
			if err == nil {
				secure, err = startSession(ctx, stream, conf)
			}
			if err != nil {
				d.Log(Lockdown, "close", "TLS: "+err.Error())
				raw.Close()
				return
			}
			stream = secure
		}
	}
	stream.Close()
}

// answer returns the reply to one request.
func (s *session) answer(name string, request map[string]any) map[string]any {
	d := s.dev
	detail := ""
	for _, field := range []string{"Service", "Domain", "Key"} {
		if v, ok := request[field].(string); ok {
			if detail != "" {
				detail += " "
			}
			detail += v
		}
	}
	d.Log(Lockdown, name, detail)
	switch name {
	case "QueryType":
		return map[string]any{"Type": "com.apple.mobile.lockdown"}
	case "GetValue":
		return s.getValue(request)
	case "SetValue", "RemoveValue":
		return s.setValue(request, name == "RemoveValue")
	case "Pair":
		return d.hosts.Pair(request, s.over == Network, d.Lock() == Unlocked)
	case "ValidatePair":
		return d.hosts.Validate(request)
	case "Unpair":
		return d.hosts.Unpair(request)
	case "StartSession":
		return s.start(request)
	case "StopSession":
		if s.id == "" || request["SessionID"] != s.id {
			return pairing.Refusal("SessionInactive")
		}
		s.id = ""
		return map[string]any{}
	case "StartService":
		return s.startService(request)
	case "Goodbye":
		return map[string]any{}
	}
	d.Violate("lockdown: unknown request %q", name)
	return pairing.Refusal("InvalidRequest")
}

func (s *session) getValue(request map[string]any) map[string]any {
	domain, hasDomain := request["Domain"].(string)
	key, hasKey := request["Key"].(string)
	reply := map[string]any{}
	if hasDomain {
		reply["Domain"] = domain
	}
	if hasKey {
		reply["Key"] = key
	}
	if s.id == "" && (domain != "" || hasKey && !public(key)) {
		reply["Error"] = "GetProhibited"
		return reply
	}
	if domain == "" && key == "DevicePublicKey" {
		b, err := s.dev.hosts.PublicKey()
		if err != nil {
			reply["Error"] = "MissingValue"
			return reply
		}
		reply["Value"] = b
		return reply
	}
	var v any
	if hasKey {
		v = s.dev.Value(domain, key)
	} else if all := s.dev.Values(domain); len(all) > 0 {
		for key := range all {
			if s.id == "" && !public(key) {
				delete(all, key)
			}
		}
		v = all
	}
	if v == nil {
		reply["Error"] = "MissingValue"
		return reply
	}
	reply["Value"] = v
	return reply
}

func (s *session) setValue(request map[string]any, remove bool) map[string]any {
	domain, _ := request["Domain"].(string)
	key, _ := request["Key"].(string)
	v := request["Value"]
	reply := map[string]any{"Key": key}
	if domain != "" {
		reply["Domain"] = domain
	}
	switch {
	case s.id == "" || !writable(domain, key):
		reply["Error"] = "SetProhibited"
	case key == "" || v == nil && !remove:
		reply["Error"] = "MissingValue"
	case remove:
		s.dev.SetValue(domain, key, nil)
	case !s.dev.values.setByHost(domain, key, v):
		reply["Error"] = "SetProhibited"
	default:
		reply["Value"] = v
	}
	return reply
}

func (s *session) start(request map[string]any) map[string]any {
	if s.id != "" {
		s.dev.Violate("StartSession during a session")
		return pairing.Refusal("SessionActive")
	}
	s.dev.mu.Lock()
	refusal := s.dev.refused[Lockdown]
	s.dev.mu.Unlock()
	if refusal != "" {
		return pairing.Refusal(refusal)
	}
	id, _ := request["HostID"].(string)
	host, ok := s.dev.hosts.Host(id)
	if !ok {
		return pairing.Refusal(pairing.InvalidHostID)
	}
	if request["SystemBUID"] != host.BUID {
		s.dev.Violate("StartSession with the SystemBUID of another pairing")
		return pairing.Refusal(pairing.InvalidHostID)
	}
	s.id, s.host = pairing.NewID(), host
	return map[string]any{"SessionID": s.id, "EnableSessionSSL": !s.dev.spec.PlainText}
}

func (s *session) startService(request map[string]any) map[string]any {
	d := s.dev
	service, _ := request["Service"].(string)
	refuse := func(name string) map[string]any {
		d.Log(service, "refused", name)
		return map[string]any{"Service": service, "Error": name}
	}
	if s.id == "" {
		d.Violate("StartService %s without a session", service)
		return refuse("SessionInactive")
	}
	d.mu.Lock()
	handler, known := d.services[service]
	refusal := d.refused[service]
	lock := d.lock.state
	d.mu.Unlock()
	if !known {
		return refuse("InvalidService")
	}
	if refusal != "" {
		return refuse(refusal)
	}
	if service == MobileBackup2 {
		bag, shown := request["EscrowBag"].([]byte)
		good := bytes.Equal(bag, s.host.EscrowBag)
		switch {
		case !shown:
			d.Violate("StartService %s without EscrowBag", service)
		case !good:
			d.Violate("StartService %s with the EscrowBag of another pairing", service)
		}
		switch {
		case lock == NotYetUnlocked && good:
			return refuse("EscrowLocked")
		case lock != Unlocked && !good:
			return refuse(pairing.PasswordProtected)
		}
	}
	p := port{service: service, handler: handler}
	reply := map[string]any{"Service": service}
	if !d.spec.PlainText {
		conf, err := d.hosts.TLS(s.host, d.tlsMax())
		if err != nil {
			return refuse("ServiceLimit")
		}
		p.tls = conf
		reply["EnableServiceSSL"] = true
	}
	number := d.openPort(p)
	if s.link != nil && s.link.network != nil {
		if err := s.link.offer(number); err != nil {
			return refuse("ServiceLimit")
		}
	}
	reply["Port"] = int(number)
	return reply
}

// framing records a violation if err says that a message was malformed. The end of a
// connection is no violation.
func (d *Device) framing(service string, err error) {
	if errors.Is(err, plist.ErrFormat) || errors.Is(err, message.ErrLength) {
		d.Violate("%s: %v", service, err)
	}
}
