package devicelink

import "math"

// Message is a received message: its name and its other elements, of the types
// that plist.Decode returns. The methods return false if an element is missing or
// of another type.
type Message []any

// Name returns the message's name.
func (m Message) Name() string {
	s, _ := m.Text(0)
	return s
}

// Text returns element i.
func (m Message) Text(i int) (string, bool) { return element[string](m, i) }

// Dict returns element i.
func (m Message) Dict(i int) (map[string]any, bool) { return element[map[string]any](m, i) }

func element[T any](m Message, i int) (v T, ok bool) {
	if i < len(m) {
		v, ok = m[i].(T)
	}
	return v, ok
}

// Int returns element i, an integer or a real with an integral value.
func (m Message) Int(i int) (int64, bool) {
	if i >= len(m) {
		return 0, false
	}
	return Int(m[i])
}

// Real returns element i, a number.
func (m Message) Real(i int) (float64, bool) {
	if i >= len(m) {
		return 0, false
	}
	switch x := m[i].(type) {
	case float64:
		return x, true
	case int64:
		return float64(x), true
	case uint64:
		return float64(x), true
	}
	return 0, false
}

// Texts returns element i, an array of texts.
func (m Message) Texts(i int) ([]string, bool) {
	list, ok := element[[]any](m, i)
	if !ok {
		return nil, false
	}
	out := make([]string, 0, len(list))
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// Int returns v as an integer if v has an integral value. Some peers write
// negative codes as unsigned two's complement, or as reals.
func Int(v any) (int64, bool) {
	switch x := v.(type) {
	case int64:
		return x, true
	case uint64:
		return int64(x), true
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1<<62 {
			return int64(x), true
		}
	}
	return 0, false
}
