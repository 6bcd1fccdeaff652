//go:build !linux && !darwin && !windows

package filesystem

import "errors"

func measure(string) (space, error) { return space{}, errors.ErrUnsupported }
