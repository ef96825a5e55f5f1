//go:build linux

package wormhole

import (
	"fmt"
	"os"
	"reflect"
	"sync"
	"syscall"
	"unsafe"
)

func (s *Sender[T]) hold() (int, func(), error)   { return s.end.hold() }
func (r *Receiver[T]) hold() (int, func(), error) { return r.end.hold() }

func (s *Sender[T]) adopt(fd int) (err error) {
	s.end, err = adoptEnd(fd, checkSender)
	return err
}

func (r *Receiver[T]) adopt(fd int) (err error) {
	r.end, err = adoptEnd(fd, checkReceiver)
	return err
}

func (e *end) hold() (int, func(), error) {
	fd, err := e.acquire()
	return fd, e.release, err
}

// holdFile duplicates the descriptor of a file, because the file may be closed while it is sent.
//
// A duplicate shares the flags of the open file. Package runtime has made pipes and connections non-blocking for its
// poller, and no program in another language expects that of what it is sent. So they become blocking, as those in
// exec.Cmd.ExtraFiles do.
func holdFile(file *os.File) (int, func(), error) {
	fd, err := duplicateFile(file)
	if err != nil {
		return -1, nil, &IOError{"duplicate a descriptor of the message", err}
	}
	flags, err := fcntl(fd, syscall.F_GETFL, 0)
	if err == nil && flags&syscall.O_NONBLOCK != 0 {
		_ = file.Fd() // tells package os where it has set the flag itself
		_, err = fcntl(fd, syscall.F_SETFL, flags&^syscall.O_NONBLOCK)
	}
	if err != nil {
		closeFd(fd)
		return -1, nil, &IOError{"make a descriptor of the message blocking", err}
	}
	return fd, func() { closeFd(fd) }, nil
}

// newFile makes a file of a descriptor that came from elsewhere.
//
// For one that is non-blocking os.NewFile asks the runtime's poller to watch it, which asks the file whether it is ready.
// In a file system that a program serves (FUSE), that program need never answer. So only pipes and sockets are
// watched, where the kernel itself answers. Others get a number that package os has seen only as that of
// something else.
func newFile(fd int) (*os.File, error) {
	name := fmt.Sprintf("wormhole descriptor %d", fd)
	// None of these calls reaches the program that serves a file.
	flags, err := fcntl(fd, syscall.F_GETFL, 0)
	if err != nil {
		return nil, err
	}
	_, notAPipe := fcntl(fd, fGetPipeSize, 0)
	_, notASocket := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if flags&syscall.O_NONBLOCK == 0 || notAPipe == nil || notASocket == nil {
		return os.NewFile(uintptr(fd), name), nil
	}
	other, err := eventFd()
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(other), name)
	if err := syscall.Dup3(fd, other, syscall.O_CLOEXEC); err != nil {
		_ = file.Close()
		return nil, err
	}
	closeFd(fd)
	return file, nil
}

// CloseAll closes every channel end, file and blob that a message holds, wherever this package would look for
// them when it sends the message. It is for those who have sent it and do not need them any more, and for those
// who have received it and are done.
//
//	job := Job{Input: input, Reply: reply}
//	err := tx.Send(ctx, job)
//	wormhole.CloseAll(job)
func CloseAll(message any) {
	closeAll(reflect.ValueOf(message))
}

// place is what a pointer, a map or a slice refers to.
type place struct {
	at  unsafe.Pointer
	len int
	typ reflect.Type
}

func closeAll(v reflect.Value) {
	// Each place is visited once: linked values may lead back to themselves, and in more ways than anybody can go.
	visited := map[place]bool{}
	var left []reflect.Value
	add := func(v reflect.Value) {
		if v.IsValid() && mayHold(v.Type()) {
			left = append(left, v)
		}
	}
	for add(v); len(left) > 0; {
		v := left[len(left)-1]
		left = left[:len(left)-1]
		if isDescriptor(v.Type()) {
			closeOne(v)
			continue
		}
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice:
			here := place{at: v.UnsafePointer(), typ: v.Type()}
			if v.Kind() == reflect.Slice {
				here.len = v.Len()
			}
			if v.IsNil() || visited[here] {
				continue
			}
			visited[here] = true
		}
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			add(v.Elem())
		case reflect.Slice, reflect.Array:
			for i := 0; i < v.Len(); i++ {
				element := v.Index(i)
				if element.Kind() == reflect.Interface {
					element = element.Elem() // most are numbers or strings, which are not even listed
				}
				add(element)
			}
		case reflect.Map:
			for entries := v.MapRange(); entries.Next(); {
				add(entries.Value())
			}
		case reflect.Struct:
			for _, f := range shapeOf(v.Type()).fields {
				if inner, err := v.FieldByIndexErr(f.index); err == nil {
					add(inner)
				}
			}
		}
	}
}

// closeOne closes a descriptor, which may be nil.
func closeOne(v reflect.Value) {
	if v.IsNil() {
		return
	}
	switch owner := v.Interface().(type) {
	case *os.File:
		_ = owner.Close()
	case givable:
		owner.closeGiven()
	case descriptor:
		_ = owner.Close()
	}
}

// holding has what mayHold has found, by type.
var holding sync.Map

// mayHold tells whether it is worth looking at a value of a type: whether a descriptor may be in it, at any depth.
func mayHold(t reflect.Type) bool {
	if known, isKnown := holding.Load(t); isKnown {
		return known.(bool)
	}
	holds := mayHoldWithin(t, map[reflect.Type]bool{})
	holding.Store(t, holds)
	return holds
}

func mayHoldWithin(t reflect.Type, seen map[reflect.Type]bool) bool {
	if isDescriptor(t) || t.Kind() == reflect.Interface {
		return true
	}
	if seen[t] {
		return false // what it leads to is looked at already
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return mayHoldWithin(t.Elem(), seen)
	case reflect.Struct:
		for _, f := range shapeOf(t).fields {
			if mayHoldWithin(f.typ, seen) {
				return true
			}
		}
	}
	return false
}
