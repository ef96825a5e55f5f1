//go:build linux

package wormhole

import (
	"container/list"
	"context"
	"os"
	"sync"
	"syscall"
	"time"
)

// Sleeping: any number of calls wait through one epoll, whose goroutine wakes them. The sockets are shared with other
// processes and so never made non-blocking, which the poller of package runtime would do. But the epoll is this
// process's own: the runtime polls it, so that waiting takes no thread at all.

// A full socket wakes those who wait for it only once three quarters of its buffer are free, while a send
// succeeds as soon as any of it is. So senders look for themselves, now and then.
const (
	firstRetry = time.Millisecond
	lastRetry  = 64 * time.Millisecond
)

// waiter is a call in the queue of its end.
type waiter struct {
	// Holds a value when the poller has found the socket ready and left it to this call.
	ready chan struct{}
	// Its place in the queue, nil outside of it.
	place *list.Element
}

// sleep is one call that sleeps, once or several times.
//
// The epoll tells of a socket once, and then no more until it is armed again. So whenever calls are in the queue, either
// it is armed, or a call that was told is awake, which arms it again when it is done.
type sleep struct {
	end    *end
	fd     int
	events int16
	waiter waiter
	retry  time.Duration
}

func newSleep(e *end, fd int, events int16) *sleep {
	return &sleep{end: e, fd: fd, events: events, waiter: waiter{ready: make(chan struct{}, 1)}, retry: firstRetry}
}

// once sleeps until it is worth looking at the socket again, or the context.
func (s *sleep) once(ctx context.Context) error {
	armed := s.enqueue()
	timeout := time.Duration(-1)
	if s.events == pollOut || !armed {
		timeout = s.retry
		if s.retry *= 2; s.retry > lastRetry {
			s.retry = lastRetry
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); timeout < 0 || left < timeout {
			timeout = left
			if timeout < 0 {
				timeout = 0
			}
		}
	}
	var expired <-chan time.Time
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-s.waiter.ready:
	case <-ctx.Done():
	case <-expired:
	case <-s.end.closing:
		return ErrClosed
	}
	return nil
}

// enqueue puts the call into the queue if it is not there, and arms the epoll. It tells whether that worked: it may not
// if the process is out of descriptors, or in a sandbox.
func (s *sleep) enqueue() bool {
	e := s.end
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.waiter.place == nil {
		s.waiter.place = e.waiters.PushBack(&s.waiter)
		select {
		case <-s.waiter.ready: // told just when its timer woke it
		default:
		}
	}
	return e.arm(s.fd, s.events)
}

// leave takes the call out of the queue. What it was told and has not made use of the next one is told.
func (s *sleep) leave() {
	e := s.end
	e.mu.Lock()
	defer e.mu.Unlock()
	wasTold := s.waiter.place == nil
	if !wasTold {
		e.waiters.Remove(s.waiter.place)
		s.waiter.place = nil
	}
	switch {
	case e.waiters.Len() == 0:
		poller.drop(s.fd, e)
	case wasTold && !e.closed:
		e.arm(s.fd, s.events)
	}
}

// arm lets the poller wake the first in the queue as soon as the socket is ready, which may be at once. The end
// is locked.
func (e *end) arm(fd int, events int16) bool {
	epoll, err := poller.start()
	if err != nil {
		return false
	}
	poller.expect(fd, e)
	event := syscall.EpollEvent{Events: uint32(events) | syscall.EPOLLONESHOT, Fd: int32(fd)}
	if e.registered {
		return syscall.EpollCtl(epoll, syscall.EPOLL_CTL_MOD, fd, &event) == nil
	}
	err = syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event)
	e.registered = err == nil
	return err == nil
}

// forget takes a socket out of the epoll.
func forget(fd int) {
	if epoll, err := poller.start(); err == nil {
		_ = syscall.EpollCtl(epoll, syscall.EPOLL_CTL_DEL, fd, &syscall.EpollEvent{})
	}
}

// wakeFirst tells the call that has waited longest that the socket is ready.
func (e *end) wakeFirst() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if first := e.waiters.Front(); first != nil {
		w := e.waiters.Remove(first).(*waiter)
		w.place = nil
		w.ready <- struct{}{} // there is room: it was in the queue, so it has taken what it was told before
	}
}

// The one poller of this process, which starts with the first call that sleeps.
var poller epollPoller

type epollPoller struct {
	mu    sync.Mutex
	epoll *os.File
	fd    int
	// The ends with calls in their queues, by descriptor.
	ends map[int]*end
}

// start gives the epoll. It fails if there is none and none can be made; it is tried again the next time.
func (p *epollPoller) start() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoll != nil {
		return p.fd, nil
	}
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err == nil {
		fd, err = aboveStreamsOrClosed(fd)
	}
	if err != nil {
		return -1, err
	}
	// Says to package os that the runtime can poll it.
	if err := syscall.SetNonblock(fd, true); err != nil {
		closeFd(fd)
		return -1, err
	}
	p.epoll, p.fd, p.ends = os.NewFile(uintptr(fd), "wormhole epoll"), fd, make(map[int]*end)
	go p.run()
	return fd, nil
}

func (p *epollPoller) expect(fd int, e *end) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends[fd] = e
}

// drop lets go of an end that nobody waits for, so that the garbage collector can find it.
func (p *epollPoller) drop(fd int, e *end) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ends[fd] == e {
		delete(p.ends, fd)
	}
}

func (p *epollPoller) find(fd int) *end {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends[fd]
}

func (p *epollPoller) run() {
	var events [128]syscall.EpollEvent
	raw, _ := p.epoll.SyscallConn() // fails for a nil file only
	for {
		count := 0
		wait := func(timeout int) bool {
			count, _ = syscall.EpollWait(p.fd, events[:], timeout)
			return count > 0
		}
		if err := raw.Read(func(uintptr) bool { return wait(0) }); err != nil {
			wait(-1) // the runtime cannot poll it: this takes a thread
		}
		for i := 0; i < count; i++ {
			// Of another end that had this descriptor before it may be, which does no harm: that one looks in vain.
			if e := p.find(int(events[i].Fd)); e != nil {
				e.wakeFirst()
			}
		}
	}
}
