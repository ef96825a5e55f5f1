//go:build linux

package wormhole

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder reads one message, whose values take descriptors out of its list.
type decoder struct {
	scanner
	// Pointers that were made on the way here.
	hops int
	// -1: taken by a value.
	fds []int
	// What has taken them, to be closed if the rest of the message turns out to be wrong.
	claimed []interface{ Close() error }
	// How many bytes the blobs may have together, and what is left of them.
	blobLimit, blobsLeft int64
}

// message reads the whole text into a zero value.
func (d *decoder) message(v reflect.Value) *problem {
	if !utf8.Valid(d.text) {
		return wrong("the text is not UTF-8")
	}
	if p := d.value(v, false); p != nil {
		return p
	}
	return d.end()
}

// close closes all descriptors of the message, those that were claimed included.
func (d *decoder) close() {
	for _, owner := range d.claimed {
		_ = owner.Close()
	}
	closeFds(d.fds)
}

// left counts the descriptors that no value has claimed.
func (d *decoder) left() (count int) {
	for _, fd := range d.fds {
		if fd >= 0 {
			count++
		}
	}
	return count
}

// value reads into v, which is zero and can be set. Where mayBeNil is true a descriptor may be null.
func (d *decoder) value(v reflect.Value, mayBeNil bool) *problem {
	t := v.Type()
	if isDescriptor(t) {
		if mayBeNil && d.peek() == 'n' {
			return d.literal("null")
		}
		return d.descriptor(v)
	}
	if t == numberType {
		number, p := d.anyNumber()
		v.SetString(string(number))
		return p
	}
	if v.Kind() == reflect.Pointer {
		if d.peek() == 'n' {
			return d.literal("null")
		}
		if d.hops++; d.hops > maxHops {
			return d.wrong("more than %d pointers to follow", maxHops)
		}
		defer func() { d.hops-- }()
		v.Set(reflect.New(t.Elem()))
		return d.value(v.Elem(), false)
	}
	if v.Kind() == reflect.Interface {
		return d.anything(v)
	}
	pointer := reflect.PointerTo(t)
	if hasMethods(pointer, unmarshalerType) {
		start := d.skipped()
		if p := d.skip(); p != nil {
			return p
		}
		if isTooWide(d.text[start:d.at]) {
			d.at = start
			return d.wrong("a number of more than %d digits", maxDigits)
		}
		if err := v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(d.text[start:d.at]); err != nil {
			return failed(err)
		}
		if string(d.text[start:d.at]) == "null" && !isWrittenNull(v) {
			d.at = start
			return d.expected("a value of type " + t.String())
		}
		return nil
	}
	if hasMethods(pointer, textUnmarshalerType) {
		text, p := d.str()
		if p != nil {
			return p
		}
		if t.PkgPath() == bigPackage && len(text) > maxDigits {
			return d.wrong("a number of more than %d digits", maxDigits)
		}
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			return failed(err)
		}
		return nil
	}
	switch v.Kind() {
	case reflect.Bool:
		truth, p := d.boolean()
		v.SetBool(truth)
		return p
	case reflect.String:
		text, p := d.str()
		v.SetString(text)
		return p
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		number, p := d.number()
		if p != nil {
			return p
		}
		if p := setNumber(v, number); p != nil {
			return d.wrong("%s", p.reason)
		}
		return nil
	case reflect.Slice:
		return d.slice(v)
	case reflect.Array:
		return d.exactly(v.Len(), func(i int) *problem { return d.value(v.Index(i), false) })
	case reflect.Map:
		return d.mapping(v)
	case reflect.Struct:
		return d.structure(v)
	}
	return d.wrong("a value of type %s cannot be read", t)
}

// skipped gives the place of the next byte that is not white space.
func (d *decoder) skipped() int {
	d.peek()
	return d.at
}

func (d *decoder) boolean() (bool, *problem) {
	switch d.peek() {
	case 't':
		return true, d.literal("true")
	case 'f':
		return false, d.literal("false")
	}
	return false, d.expected("true or false")
}

// setNumber puts a number into a field of a fixed type.
func setNumber(v reflect.Value, number string) *problem {
	bits := v.Type().Bits()
	var err error
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		var f float64
		if f, err = strconv.ParseFloat(number, bits); err == nil {
			v.SetFloat(f)
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var i int64
		if i, err = strconv.ParseInt(number, 10, bits); err == nil {
			if number == "-0" {
				return wrong("found -0, expected an integer")
			}
			v.SetInt(i)
		}
	default:
		var u uint64
		if u, err = strconv.ParseUint(number, 10, bits); err == nil {
			v.SetUint(u)
		}
	}
	if err != nil {
		return wrong("the number %s does not fit %s", clip(number), v.Type())
	}
	return nil
}

// anyNumber reads a number that keeps all of its digits, but must not be beyond all floats.
func (d *decoder) anyNumber() (json.Number, *problem) {
	number, p := d.number()
	if p != nil {
		return "", p
	}
	if f, err := strconv.ParseFloat(number, 64); err != nil || math.IsInf(f, 0) {
		return "", d.wrong("a number out of range")
	}
	return json.Number(number), nil
}

// anything reads into an interface.
func (d *decoder) anything(v reflect.Value) *problem {
	if v.NumMethod() > 0 {
		return d.wrong("nothing says which type a value of interface %s has", v.Type())
	}
	found, p := d.loose()
	if p != nil {
		return p
	}
	if found != nil {
		v.Set(reflect.ValueOf(found))
	}
	return nil
}

// loose reads a value of no given type, as encoding/json does with UseNumber.
func (d *decoder) loose() (any, *problem) {
	switch c := d.peek(); {
	case c == '{':
		found := map[string]any{}
		p := d.object(func(name string) (p *problem) {
			found[name], p = d.loose()
			return p
		})
		return found, p
	case c == '[':
		found := []any{}
		p := d.array(func(int) *problem {
			element, p := d.loose()
			found = append(found, element)
			return p
		})
		return found, p
	case c == '"':
		return d.str()
	case c == 't' || c == 'f':
		return d.boolean()
	case c == 'n':
		return nil, d.literal("null")
	case c == '-' || '0' <= c && c <= '9':
		return d.anyNumber()
	}
	return nil, d.expected("a value")
}

func (d *decoder) slice(v reflect.Value) *problem {
	t := v.Type()
	v.Set(reflect.MakeSlice(t, 0, 0))
	list := v
	p := d.array(func(i int) *problem {
		if i == list.Cap() {
			larger := reflect.MakeSlice(t, i, 2*i+4)
			reflect.Copy(larger, list)
			list = larger
		}
		list = list.Slice(0, i+1)
		return d.value(list.Index(i), false)
	})
	v.Set(list)
	return p
}

// exactly reads a list of so many elements.
func (d *decoder) exactly(count int, element func(i int) *problem) *problem {
	read := 0
	p := d.array(func(i int) *problem {
		if i == count {
			return d.wrong("expected a list of %d", count)
		}
		read++
		return element(i)
	})
	if p == nil && read < count {
		return d.wrong("found a list of %d, expected %d", read, count)
	}
	return p
}

func (d *decoder) mapping(v reflect.Value) *problem {
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	return d.object(func(name string) *problem {
		key := reflect.New(t.Key()).Elem()
		if p := setKey(key, name); p != nil {
			return d.wrong("%s", p.reason)
		}
		value := reflect.New(t.Elem()).Elem()
		if p := d.value(value, false); p != nil {
			return p
		}
		closeAll(v.MapIndex(key)) // the last one of a key counts, the others go
		v.SetMapIndex(key, value)
		return nil
	})
}

// setKey reads a key, which is the string that the same value is elsewhere, or its number or boolean as a string.
func setKey(key reflect.Value, name string) *problem {
	t := key.Type()
	own := key.Addr().Interface()
	isText := hasMethods(reflect.PointerTo(t), textUnmarshalerType)
	if hasMethods(reflect.PointerTo(t), unmarshalerType) {
		var quoted encoder
		if p := quoted.str(name); p != nil {
			return p
		}
		err := own.(json.Unmarshaler).UnmarshalJSON(quoted.text)
		if err == nil {
			return nil
		}
		key.Set(reflect.Zero(t))
		bare := scanner{text: []byte(name)}
		isBare := name != "" && strings.IndexByte("-0123456789tf", name[0]) >= 0 && bare.skip() == nil && bare.at == len(name)
		if isBare && !isTooWide(bare.text) && own.(json.Unmarshaler).UnmarshalJSON(bare.text) == nil {
			return nil
		}
		if !isText {
			return failed(err)
		}
		key.Set(reflect.Zero(t))
	}
	if isText {
		if err := own.(encoding.TextUnmarshaler).UnmarshalText([]byte(name)); err != nil {
			return failed(err)
		}
		return nil
	}
	switch key.Kind() {
	case reflect.String:
		key.SetString(name)
		return nil
	case reflect.Bool:
		if name != "true" && name != "false" {
			return wrong("found the key %q, expected true or false", clip(name))
		}
		key.SetBool(name == "true")
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		check := scanner{text: []byte(name)}
		if number, p := check.number(); p != nil || number != name {
			return wrong("found the key %q, expected a number", clip(name))
		}
		return setNumber(key, name)
	}
	return wrong("a map with keys of type %s cannot be read", key.Type())
}

func (d *decoder) structure(v reflect.Value) *problem {
	s := shapeOf(v.Type())
	if s.problem != "" {
		return wrong("%s: %s", v.Type(), s.problem)
	}
	switch s.layout {
	case tuple:
		return d.exactly(len(s.fields), func(i int) *problem { return d.field(v, &s.fields[i]) })
	case enum:
		return d.variant(v, s)
	}
	seen := make([]bool, len(s.fields))
	p := d.object(func(name string) *problem {
		i, known := s.byName[name]
		if !known {
			return d.skip()
		}
		if seen[i] {
			return d.wrong("a second member of this name")
		}
		seen[i] = true
		return d.field(v, &s.fields[i])
	})
	if p != nil {
		return p
	}
	for i := range s.fields {
		if f := &s.fields[i]; !seen[i] && !f.optional {
			return d.wrong("missing member %q", f.name)
		}
	}
	return nil
}

// field reads into a field, which may be in an embedded pointer.
func (d *decoder) field(v reflect.Value, f *field) *problem {
	for i, index := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !v.CanSet() {
					return d.wrong("the embedded %s cannot be made, it is not exported", v.Type())
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(index)
	}
	return d.value(v, f.omitEmpty)
}

func (d *decoder) variant(v reflect.Value, s *shape) *problem {
	if d.peek() == '"' {
		name, p := d.str()
		if p != nil {
			return p
		}
		i, known := s.byName[name]
		if !known || s.fields[i].typ.Kind() != reflect.Bool {
			return d.wrong("%s has no variant %q without fields", v.Type(), clip(name))
		}
		v.FieldByIndex(s.fields[i].index).SetBool(true)
		return nil
	}
	count := 0
	p := d.object(func(name string) *problem {
		if count++; count > 1 {
			return d.wrong("a second variant")
		}
		i, known := s.byName[name]
		if !known {
			return d.wrong("%s has no such variant", v.Type())
		}
		target := v.FieldByIndex(s.fields[i].index)
		if target.Kind() == reflect.Bool {
			target.SetBool(true)
			return d.literal("null") // which serde takes as well
		}
		if isDescriptor(target.Type()) {
			return d.value(target, false)
		}
		// Set even if what it points to is null.
		target.Set(reflect.New(target.Type().Elem()))
		return d.value(target.Elem(), false)
	})
	if p == nil && count == 0 {
		return d.wrong("expected a variant of %s", v.Type())
	}
	return p
}

// descriptor reads an index and takes its descriptor.
func (d *decoder) descriptor(v reflect.Value) *problem {
	number, p := d.number()
	if p != nil {
		return p
	}
	index, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return d.wrong("found %s, expected the index of a descriptor", clip(number))
	}
	if index >= uint64(len(d.fds)) {
		return d.wrong("descriptor %d of a message that carries %d (the first is 0)", index, len(d.fds))
	}
	fd := d.fds[index]
	if fd < 0 {
		return d.wrong("descriptor %d was taken before", index)
	}
	d.fds[index] = -1
	if v.Type() == fileType {
		file, err := newFile(fd)
		if err != nil {
			closeFd(fd)
			return failed(&IOError{"take a descriptor of a message", err})
		}
		d.claimed = append(d.claimed, file)
		v.Set(reflect.ValueOf(file))
		return nil
	}
	v.Set(reflect.New(v.Type().Elem()))
	owner := v.Interface().(descriptor)
	if blob, ok := owner.(*Blob); ok {
		err = blob.adoptWithin(fd, d.takeBlob)
	} else {
		err = owner.adopt(fd)
	}
	if err != nil {
		return failed(err)
	}
	d.claimed = append(d.claimed, owner)
	return nil
}

// takeBlob allows for a blob of so many bytes, or says why not.
func (d *decoder) takeBlob(size int64) error {
	if size > d.blobsLeft {
		// They may be more than any integer when added up.
		total := uint64(d.blobLimit-d.blobsLeft) + uint64(size)
		return fmt.Errorf("blobs of %d bytes are longer than the limit of %d bytes", total, d.blobLimit)
	}
	d.blobsLeft -= size
	return nil
}

// isWrittenNull tells whether a value that was read from null is null. By convention most methods leave a value as it is
// for null, so that it would arrive as zero.
func isWrittenNull(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return true // it can be nil
	}
	own, isOwn := v.Addr().Interface().(json.Marshaler)
	if !isOwn {
		return false
	}
	text, err := own.MarshalJSON()
	return err == nil && string(text) == "null"
}
