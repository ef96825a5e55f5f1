//go:build linux

package wormhole

import (
	"bytes"
	"encoding"
	"encoding/json"
	"math"
	"os"
	"reflect"
	"sort"
	"strconv"
	"unicode/utf8"
)

// encoder writes one message: its text, and the list of the descriptors that its values refer to.
type encoder struct {
	text []byte
	// Brackets that are open.
	depth int
	// Pointers that were followed on the way here. They can form a ring without any bracket.
	hops int
	// The descriptors, in the order of their indices. Beyond the limit they are only counted.
	fds   []int
	count int
	held  []func()
	// Those that are to know that they have been sent.
	given []givable
}

type givable interface {
	give()
	closeGiven()
}

const maxHops = 1000

// release lets go of the descriptors.
func (e *encoder) release() {
	for _, release := range e.held {
		release()
	}
	e.held = nil
}

func (e *encoder) value(v reflect.Value) *problem {
	if !v.IsValid() {
		return e.write("null")
	}
	t := v.Type()
	if isDescriptor(t) {
		return e.descriptor(v)
	}
	if t == numberType {
		return e.number(v.String())
	}
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return e.write("null")
		}
		// What a pointer points to finds its pointer's methods again.
		if e.hops++; e.hops > maxHops {
			return wrong("more than %d pointers to follow", maxHops)
		}
		defer func() { e.hops-- }()
		start := len(e.text)
		p := e.value(v.Elem())
		if p == nil && v.Kind() == reflect.Pointer && string(bytes.TrimSpace(e.text[start:])) == "null" {
			return wrong("a pointer to a %s that is written null would arrive as nil itself", t.Elem())
		}
		return p
	}
	if written, p := e.byMethod(v); written {
		return p
	}
	switch v.Kind() {
	case reflect.Bool:
		return e.write(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.text = strconv.AppendInt(e.text, v.Int(), 10)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.text = strconv.AppendUint(e.text, v.Uint(), 10)
		return nil
	case reflect.Float32, reflect.Float64:
		return e.float(v.Float(), t.Bits())
	case reflect.String:
		return e.str(v.String())
	case reflect.Slice, reflect.Array:
		return e.list(v.Len(), v.Index)
	case reflect.Map:
		return e.mapping(v)
	case reflect.Struct:
		return e.structure(v)
	}
	return wrong("a value of type %s cannot be written", t)
}

func (e *encoder) write(text string) *problem {
	e.text = append(e.text, text...)
	return nil
}

// descriptor adds one to the message, and writes its index.
func (e *encoder) descriptor(v reflect.Value) *problem {
	if v.IsNil() {
		return wrong("a nil %s, which only a field with the option omitempty may be", v.Type())
	}
	index := e.count
	e.count++
	if index < maxFds {
		var fd int
		var release func()
		var err error
		if file, ok := v.Interface().(*os.File); ok {
			fd, release, err = holdFile(file)
		} else {
			fd, release, err = v.Interface().(descriptor).hold()
			if listener, ok := v.Interface().(givable); ok {
				e.given = append(e.given, listener)
			}
		}
		if err != nil {
			return failed(err)
		}
		e.fds = append(e.fds, fd)
		e.held = append(e.held, release)
	}
	e.text = strconv.AppendInt(e.text, int64(index), 10)
	return nil
}

// withMethods gives what brings its own way of being written: the value or a pointer to it, or else nil.
func withMethods(v reflect.Value) any {
	t := v.Type()
	pointer := reflect.PointerTo(t)
	switch {
	case hasMethods(t, marshalerType) || hasMethods(t, textMarshalerType):
		return v.Interface()
	case hasMethods(pointer, marshalerType) || hasMethods(pointer, textMarshalerType):
		if !v.CanAddr() {
			// Such as an element of a map. encoding/json would pass over the method.
			addressable := reflect.New(t).Elem()
			addressable.Set(v)
			v = addressable
		}
		return v.Addr().Interface()
	}
	return nil
}

// byMethod writes a value that brings its own way of being written.
func (e *encoder) byMethod(v reflect.Value) (written bool, p *problem) {
	own := withMethods(v)
	if own == nil {
		return false, nil
	}
	if marshaler, ok := own.(json.Marshaler); ok {
		text, err := marshaler.MarshalJSON()
		if err != nil {
			return true, failed(err)
		}
		return true, e.raw(text)
	}
	text, err := own.(encoding.TextMarshaler).MarshalText()
	if err != nil {
		return true, failed(err)
	}
	if v.Type().PkgPath() == bigPackage && len(text) > maxDigits {
		return true, wrong("a number of more than %d digits", maxDigits)
	}
	return true, e.str(string(text))
}

// raw writes what somebody else has encoded, after checking it.
func (e *encoder) raw(text []byte) *problem {
	if !utf8.Valid(text) {
		return wrong("what MarshalJSON wrote is not UTF-8")
	}
	check := scanner{text: text, depth: e.depth}
	p := check.skip()
	if p == nil {
		p = check.end()
	}
	if p != nil {
		p.reason = "what MarshalJSON wrote is no JSON: " + p.reason
		return p
	}
	if isTooWide(text) {
		return wrong("a number of more than %d digits", maxDigits)
	}
	e.text = append(e.text, text...)
	return nil
}

// maxDigits is how long a number may be that a method reads or writes. Those of package math/big take the square of it in
// time. Python has the same limit, for all integers.
const maxDigits = 4300

// isTooWide tells whether a text is a number of more digits.
func isTooWide(text []byte) bool {
	text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("-"))
	return len(text) > maxDigits && '0' <= text[0] && text[0] <= '9'
}

func (e *encoder) number(text string) *problem {
	check := scanner{text: []byte(text)}
	if number, p := check.number(); p != nil || number != text {
		return wrong("%q is no number", clip(text))
	}
	return e.write(text)
}

func (e *encoder) float(f float64, bits int) *problem {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return wrong("JSON has no number for %v", f)
	}
	start := len(e.text)
	format := byte('f')
	if size := math.Abs(f); size != 0 && (size < 1e-6 || size >= 1e21) {
		format = 'e'
	}
	e.text = strconv.AppendFloat(e.text, f, format, -1, bits)
	for _, c := range e.text[start:] {
		if c == '.' || c == 'e' {
			return nil
		}
	}
	return e.write(".0")
}

func (e *encoder) str(text string) *problem {
	if !utf8.ValidString(text) {
		return wrong("the string %q is not UTF-8", clip(text))
	}
	e.text = append(e.text, '"')
	start := 0
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		e.text = append(e.text, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			e.text = append(e.text, '\\', c)
		case '\b':
			e.text = append(e.text, '\\', 'b')
		case '\f':
			e.text = append(e.text, '\\', 'f')
		case '\n':
			e.text = append(e.text, '\\', 'n')
		case '\r':
			e.text = append(e.text, '\\', 'r')
		case '\t':
			e.text = append(e.text, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			e.text = append(e.text, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	e.text = append(e.text, text[start:]...)
	e.text = append(e.text, '"')
	return nil
}

func (e *encoder) open(bracket byte) *problem {
	if e.depth++; e.depth > maxDepth {
		return wrong("nested deeper than %d levels", maxDepth)
	}
	e.text = append(e.text, bracket)
	return nil
}

func (e *encoder) shut(bracket byte) *problem {
	e.depth--
	e.text = append(e.text, bracket)
	return nil
}

func (e *encoder) comma(i int) {
	if i > 0 {
		e.text = append(e.text, ',')
	}
}

func (e *encoder) list(length int, element func(i int) reflect.Value) *problem {
	if p := e.open('['); p != nil {
		return p
	}
	for i := 0; i < length; i++ {
		e.comma(i)
		if p := e.value(element(i)); p != nil {
			return p.in("[" + strconv.Itoa(i) + "]")
		}
	}
	return e.shut(']')
}

func (e *encoder) member(name string, v reflect.Value) *problem {
	if p := e.str(name); p != nil {
		return p
	}
	e.text = append(e.text, ':')
	if p := e.value(v); p != nil {
		return p.in("." + clip(name))
	}
	return nil
}

// mapping writes a map in the order of its keys, so that the same map is the same text.
func (e *encoder) mapping(v reflect.Value) *problem {
	type entry struct {
		key   string
		value reflect.Value
	}
	entries := make([]entry, 0, v.Len())
	for found := v.MapRange(); found.Next(); {
		key, p := keyText(found.Key())
		if p != nil {
			return p
		}
		entries = append(entries, entry{key, found.Value()})
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].key < entries[j].key })
	if p := e.open('{'); p != nil {
		return p
	}
	for i, entry := range entries {
		if i > 0 && entry.key == entries[i-1].key {
			return wrong("two keys that are both written %q", clip(entry.key))
		}
		e.comma(i)
		if p := e.member(entry.key, entry.value); p != nil {
			return p
		}
	}
	return e.shut('}')
}

// keyText writes a key as serde_json does: as the string that the same value is elsewhere; numbers and booleans as strings.
func keyText(key reflect.Value) (string, *problem) {
	v := key
	if v.Kind() == reflect.Interface && !v.IsNil() {
		v = v.Elem()
	}
	var scalar encoder
	written, p := scalar.byMethod(v)
	if !written {
		switch key.Kind() {
		case reflect.String:
			return key.String(), nil
		case reflect.Bool, reflect.Float32, reflect.Float64,
			reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
			reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			p = scalar.value(key)
		default:
			p = wrong("a map with keys of type %s cannot be written", key.Type())
		}
	}
	if p != nil {
		return "", p
	}
	s := scanner{text: scalar.text}
	switch s.peek() {
	case '"':
		return s.str()
	case '{', '[', 'n':
		// Some types have another form for keys.
		if marshaler, ok := withMethods(v).(encoding.TextMarshaler); ok {
			text, err := marshaler.MarshalText()
			if err != nil {
				return "", failed(err)
			}
			return string(text), nil
		}
		return "", wrong("a key of type %s that is written %s", key.Type(), clip(string(scalar.text)))
	}
	return string(bytes.TrimSpace(scalar.text)), nil
}

func (e *encoder) structure(v reflect.Value) *problem {
	s := shapeOf(v.Type())
	if s.problem != "" {
		return wrong("%s: %s", v.Type(), s.problem)
	}
	switch s.layout {
	case tuple:
		var missing *problem
		p := e.list(len(s.fields), func(i int) reflect.Value {
			inner, err := v.FieldByIndexErr(s.fields[i].index)
			if err != nil {
				missing = failed(err)
			}
			return inner
		})
		if p == nil {
			p = missing
		}
		return p
	case enum:
		return e.variant(v, s)
	}
	if p := e.open('{'); p != nil {
		return p
	}
	written := 0
	for _, f := range s.fields {
		inner, err := v.FieldByIndexErr(f.index)
		if err != nil || f.omitEmpty && isEmpty(inner) {
			continue // in an embedded pointer that is nil
		}
		e.comma(written)
		written++
		if p := e.member(f.name, inner); p != nil {
			return p
		}
	}
	return e.shut('}')
}

// variant writes the one field of an enum that is set.
func (e *encoder) variant(v reflect.Value, s *shape) *problem {
	var chosen *field
	var value reflect.Value
	for i := range s.fields {
		inner, err := v.FieldByIndexErr(s.fields[i].index)
		if err != nil || inner.IsZero() {
			continue
		}
		if chosen != nil {
			return wrong("both %s and %s of %s are set", chosen.name, s.fields[i].name, v.Type())
		}
		chosen, value = &s.fields[i], inner
	}
	if chosen == nil {
		return wrong("no variant of %s is set", v.Type())
	}
	if value.Kind() == reflect.Bool {
		return e.str(chosen.name)
	}
	if p := e.open('{'); p != nil {
		return p
	}
	if !isDescriptor(value.Type()) {
		value = value.Elem() // which may be null here
	}
	if p := e.member(chosen.name, value); p != nil {
		return p
	}
	return e.shut('}')
}

// isEmpty is what encoding/json means by omitempty.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}
