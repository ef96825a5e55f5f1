//go:build linux

package wormhole

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"syscall"
)

// A whole message out, a whole message in: one packet, and the memfd that a long one needs beside it.

// Bytes of a packet before the text.
const headerSize = 8

var (
	outBuffers = sync.Pool{New: func() any { return new([]byte) }}
	inBuffers  = sync.Pool{New: func() any { return new(inBuffer) }}
)

func (e *end) sendMessage(ctx context.Context, mayWait bool, message reflect.Value, files []*os.File) error {
	if e == nil {
		return ErrClosed
	}
	buffer := outBuffers.Get().(*[]byte)
	defer outBuffers.Put(buffer)
	encoder := encoder{text: append((*buffer)[:0], make([]byte, headerSize)...)}
	defer encoder.release()
	p := encoder.value(message)
	packet := encoder.text
	if cap(packet) <= 2*maxPacket {
		*buffer = packet // one that a long message has made is not kept
	}
	if p != nil {
		var io *IOError
		if errors.As(p.err, &io) {
			return io
		}
		return &EncodeError{message.Type().String(), p.text(), p.err}
	}
	length, limit := uint64(len(packet)-headerSize), uint64(e.currentLimits().message)
	if length > limit {
		return &TooLargeError{length, limit}
	}
	binary.LittleEndian.PutUint64(packet, length)
	count := encoder.count + len(files)
	if err := checkCount(count); err != nil {
		return err
	}
	fds := encoder.fds
	for _, file := range files {
		fd, release, err := holdFile(file)
		if err != nil {
			return err
		}
		encoder.held = append(encoder.held, release)
		fds = append(fds, fd)
	}
	if err := e.sendPacket(ctx, mayWait, packet, fds); err != nil {
		return err
	}
	for _, listener := range encoder.given {
		listener.give()
	}
	return nil
}

// trust is how many packets may be refused before what the kernel says of its buffer is taken for wrong.
const trust = 4

// sendPacket sends an encoded message, with a memfd for what the socket does not take.
func (e *end) sendPacket(ctx context.Context, mayWait bool, packet []byte, fds []int) error {
	inline, memfd, refused := packet, -1, 0
	defer func() { closeFds([]int{memfd}) }()
	split := func(fd int) error {
		if err := checkCount(len(fds) + 1); err != nil {
			return err
		}
		limit, err := packetLimit(fd)
		if err != nil {
			return &IOError{"look up the size of the buffer", err}
		}
		// Some kernel may take less than it says. Then half of that, and so on.
		if refused > trust {
			limit >>= refused - trust
		}
		closeFds([]int{memfd})
		inline, memfd = packet, -1
		if limit >= len(packet) {
			return nil // the buffer has grown since
		}
		if limit < headerSize {
			return &IOError{"send a message", syscall.EMSGSIZE}
		}
		memfd, err = memfdCreate("create the memfd (memfd_create) that a long message needs", 0)
		if err != nil {
			return err
		}
		inline = packet[:limit]
		if err := fillMemfd(memfd, packet[limit:]); err != nil {
			return &IOError{"put a long message into a memfd", err}
		}
		return nil
	}
	err := e.until(ctx, pollOut, mayWait, func(fd int) error {
		if memfd < 0 && len(packet) > maxPacket {
			if err := split(fd); err != nil {
				return err
			}
		}
		for {
			all := fds
			if memfd >= 0 {
				all = append([]int{memfd}, fds...)
			}
			err := sendPacket(fd, inline, all)
			if err != syscall.EMSGSIZE {
				return err
			}
			// The socket's buffer is smaller than the packet, or than it was a moment ago: some other process
			// that shares the socket may have changed it.
			refused++
			if err := split(fd); err != nil {
				return err
			}
		}
	})
	errno, ok := err.(syscall.Errno)
	switch {
	case err == errWouldBlock:
		return ErrFull
	case !ok:
		return err
	case errno == syscall.EPIPE || errno == syscall.ECONNRESET || errno == syscall.ECONNREFUSED:
		return ErrDisconnected
	case errno == syscall.ETOOMANYREFS:
		return ErrTooManyFdsInFlight
	}
	return &IOError{"send a message", errno}
}

func checkCount(count int) error {
	if count > maxFds {
		return &TooManyFdsError{count, maxFds}
	}
	return nil
}

func (e *end) recvMessage(
	ctx context.Context, mayWait bool, message reflect.Value, files *[]*os.File,
) error {
	if e == nil {
		return ErrClosed
	}
	// Only for as long as there is something in it: thousands may wait.
	var buffer *inBuffer
	var packet received
	err := e.until(ctx, pollIn, mayWait, func(fd int) (err error) {
		buffer = inBuffers.Get().(*inBuffer)
		if packet, err = recvPacket(fd, buffer); err != nil {
			inBuffers.Put(buffer)
			buffer = nil
		}
		return err
	})
	if buffer != nil {
		defer inBuffers.Put(buffer)
	}
	limits := e.currentLimits()
	errno, ok := err.(syscall.Errno)
	switch {
	case err == errWouldBlock:
		return ErrEmpty
	case ok:
		return &IOError{"receive a message", errno}
	case err != nil:
		return err
	case packet.end:
		return ErrDisconnected
	}
	decoder := decoder{fds: packet.fds, blobsLeft: limits.blobs, blobLimit: limits.blobs}
	done := false
	defer func() {
		if !done { // a panic of some UnmarshalJSON included
			decoder.close()
		}
	}()
	if packet.lost {
		return ErrFdsLost
	}
	if packet.len > maxPacket {
		return &MalformedError{fmt.Sprintf(
			"a packet of %d bytes is longer than the limit of %d", packet.len, maxPacket)}
	}
	decoder.text, err = wholeText(buffer.bytes[:packet.len], &decoder.fds, limits.message)
	if err != nil {
		return err
	}
	if p := decoder.message(message); p != nil {
		return &DecodeError{message.Type().String(), p.text(), p.err}
	}
	if files == nil {
		if count := decoder.left(); count > 0 {
			return &UnexpectedFdsError{count}
		}
	} else {
		for i, fd := range decoder.fds {
			if fd < 0 {
				continue
			}
			file, err := newFile(fd)
			if err != nil {
				*files = nil
				return &IOError{"take a descriptor beside a message", err}
			}
			decoder.fds[i] = -1
			decoder.claimed = append(decoder.claimed, file)
			*files = append(*files, file)
		}
	}
	done = true
	return nil
}

// wholeText takes a packet apart, and gives the text of the message. The memfd of a long one is taken out of
// the descriptors.
func wholeText(packet []byte, fds *[]int, limit int) ([]byte, error) {
	if len(packet) < headerSize {
		return nil, &MalformedError{fmt.Sprintf(
			"%d bytes are too few for the length of a message, which takes %d", len(packet), headerSize)}
	}
	declared, inline := binary.LittleEndian.Uint64(packet), packet[headerSize:]
	if declared < uint64(len(inline)) {
		return nil, &MalformedError{fmt.Sprintf(
			"%d bytes of text came with a declared length of %d", len(inline), declared)}
	}
	if declared > uint64(limit) {
		return nil, &TooLargeError{declared, uint64(limit)}
	}
	missing := int(declared) - len(inline)
	if missing == 0 {
		return inline, nil
	}
	if len(*fds) == 0 {
		return nil, &MalformedError{fmt.Sprintf(
			"%d bytes of text are missing and no descriptor came with the rest", missing)}
	}
	memfd := (*fds)[0]
	*fds = (*fds)[1:]
	defer closeFd(memfd)
	// A file of another kind could make the read below wait forever.
	if _, err := fcntl(memfd, fGetSeals, 0); err != nil {
		return nil, &MalformedError{fmt.Sprintf(
			"the descriptor for the %d bytes that the packet lacks is not a memfd", missing)}
	}
	const reading = "read a long message from its memfd"
	var stat syscall.Stat_t
	if err := syscall.Fstat(memfd, &stat); err != nil {
		return nil, &IOError{reading, err}
	}
	if stat.Size != int64(missing) {
		return nil, &MalformedError{fmt.Sprintf(
			"the packet lacks %d bytes and the memfd that came with it has %d", missing, stat.Size)}
	}
	text := make([]byte, declared)
	// Not a mapping: a memfd that its sender shrinks now must not cause SIGBUS here.
	for at := copy(text, inline); at < len(text); {
		n, err := syscall.Pread(memfd, text[at:], int64(at-len(inline)))
		switch {
		case err == syscall.EINTR:
		case err == syscall.EBADF:
			return nil, &MalformedError{"the memfd of a long message is not open for reading"}
		case err != nil:
			return nil, &IOError{reading, err}
		case n == 0:
			return nil, &MalformedError{"the memfd of a long message was cut while it was read"}
		default:
			at += n
		}
	}
	return text, nil
}
