//go:build linux

package wormhole

import (
	"os"
	"reflect"
)

func (s *Sender[T]) hold() (int, func(), error)   { return s.end.hold() }
func (r *Receiver[T]) hold() (int, func(), error) { return r.end.hold() }

func (s *Sender[T]) adopt(fd int) (err error) {
	s.end, err = adoptEnd(fd)
	return err
}

func (r *Receiver[T]) adopt(fd int) (err error) {
	r.end, err = adoptEnd(fd)
	return err
}

func (e *end) hold() (int, func(), error) {
	fd, err := e.acquire()
	return fd, e.release, err
}

// holdFile duplicates the descriptor of a file, because the file may be closed while it is sent.
func holdFile(file *os.File) (int, func(), error) {
	fd, err := duplicateFile(file)
	if err != nil {
		return -1, nil, &IOError{"duplicate a descriptor of the message", err}
	}
	return fd, func() { closeFd(fd) }, nil
}

// CloseAll closes every channel end, file and blob that a message holds, wherever this package would look for
// them when it sends the message. It is for those who have sent it and do not need them any more, and for those
// who have received it and are done.
//
//	job := Job{Input: input, Reply: reply}
//	err := tx.Send(ctx, job)
//	wormhole.CloseAll(job)
func CloseAll(message any) {
	closeAll(reflect.ValueOf(message), 0)
}

func closeAll(v reflect.Value, depth int) {
	if !v.IsValid() || depth > 4*maxDepth {
		return
	}
	if isDescriptor(v.Type()) {
		if v.IsNil() {
			return
		}
		if file, ok := v.Interface().(*os.File); ok {
			_ = file.Close()
		} else {
			_ = v.Interface().(descriptor).Close()
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		closeAll(v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		if !mayHold(v.Type().Elem()) {
			return
		}
		for i := 0; i < v.Len(); i++ {
			closeAll(v.Index(i), depth+1)
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			closeAll(entries.Value(), depth+1)
		}
	case reflect.Struct:
		for _, f := range shapeOf(v.Type()).fields {
			if inner, err := v.FieldByIndexErr(f.index); err == nil {
				closeAll(inner, depth+1)
			}
		}
	}
}

// mayHold tells whether it is worth looking at each element.
func mayHold(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
		return true
	}
	return false
}
