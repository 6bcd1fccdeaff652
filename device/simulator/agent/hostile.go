package agent

import "github.com/snap-backup/snap/device/devicelink"

// attackNamed returns what a hostile device does under a name, nil if there is
// no such attack.
func attackNamed(name string) func(*talk) error {
	switch name {
	case "mkdir-dotdot":
		return func(t *talk) error { return t.refused("DLMessageCreateDirectory", "../hostile", map[string]any{}) }
	case "list-absolute":
		return func(t *talk) error { return t.refused("DLContentsOfDirectory", "/etc", map[string]any{}) }
	}
	return nil
}

// refused asks for what a host must not do.
func (t *talk) refused(name string, args ...any) error {
	s, err := t.ask(name, args...)
	if err == nil && s.Code == devicelink.StatusOK {
		t.agent.violate("the host accepts %s of %q", name, args[0])
	}
	return err
}
