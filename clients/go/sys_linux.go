package wormhole

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// The system calls, each one attempt. Waiting is in end.go.

const (
	// The longest packet, and so the size of a receiver's buffer.
	maxPacket = 256 * 1024
	// The most descriptors that one packet carries: SCM_MAX_FD, unix(7).
	maxFds = 253

	// What package syscall lacks.
	soDomain      = 39
	scmPidfd      = 4
	pollIn        = 0x1
	pollOut       = 0x4
	pollRdhup     = 0x2000
	fGetSeals     = 1034
	fAddSeals     = 1033
	sealSeal      = 1
	sealShrink    = 2
	sealGrow      = 4
	sealWrite     = 8
	mfdCloexec    = 1
	mfdSealing    = 2
	tmpfsMagic    = 0x01021994
	efdCloexec    = 0x80000
	fGetPipeSize  = 1032
	pollHup       = 0x10
	lockExclusive = syscall.LOCK_EX | syscall.LOCK_NB
)

// socketPair makes the two sockets of a channel.
func socketPair(buffer int) (sending, receiving int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, &IOError{"create a socket pair", err}
	}
	defer func() {
		if err != nil {
			closeFd(pair[0])
			closeFd(pair[1])
		}
	}()
	// Were this direction open, a receiver that writes backwards would make a receive fail.
	if err := syscall.Shutdown(pair[1], syscall.SHUT_WR); err != nil {
		return -1, -1, &IOError{"make a socket pair one-way", err}
	}
	if buffer > 0 {
		const operation = "set the size of the channel's buffer"
		if int(int32(buffer)) != buffer {
			return -1, -1, &IOError{operation, syscall.EINVAL}
		}
		if err := syscall.SetsockoptInt(pair[0], syscall.SOL_SOCKET, syscall.SO_SNDBUF, buffer); err != nil {
			return -1, -1, &IOError{operation, err}
		}
		size, err := bufferSize(pair[0])
		if err != nil {
			return -1, -1, &IOError{operation, err}
		}
		// The kernel doubles what is asked, after cutting it to net.core.wmem_max: socket(7).
		if size/2 < buffer {
			return -1, -1, &IOError{operation, fmt.Errorf(
				"%d bytes asked for, net.core.wmem_max of this machine allows %d: %w", buffer, size/2, syscall.EINVAL)}
		}
	}
	for i := range pair {
		if pair[i], err = aboveStreams(pair[i]); err != nil {
			return -1, -1, &IOError{"create a socket pair", err}
		}
	}
	return pair[0], pair[1], nil
}

// aboveStreams gives a descriptor a number above those of the standard streams, which a program that was started with
// them closed could otherwise write to or close. On failure it is as it was.
func aboveStreams(fd int) (int, error) {
	if fd >= firstInherited {
		return fd, nil
	}
	moved, err := duplicateFd(fd)
	if err != nil {
		return fd, err
	}
	closeFd(fd)
	return moved, nil
}

func bufferSize(fd int) (int, error) {
	return syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF)
}

// packetLimit gives the longest packet that the socket's buffer takes, and that a receiver expects.
func packetLimit(fd int) (int, error) {
	size, err := bufferSize(fd)
	// Unix sockets refuse a packet longer than their send buffer less 32 bytes.
	if size -= 32; size > maxPacket {
		size = maxPacket
	}
	return size, err
}

// checkKind checks that a descriptor is a unix SOCK_SEQPACKET socket.
func checkKind(fd int) error {
	domain, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, soDomain)
	if err != nil {
		return &NotAChannelError{err.Error()}
	}
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return &IOError{"look up the type of a socket", err}
	}
	if domain != syscall.AF_UNIX {
		return &NotAChannelError{fmt.Sprintf("a socket of family %d, not AF_UNIX", domain)}
	}
	if kind != syscall.SOCK_SEQPACKET {
		return &NotAChannelError{fmt.Sprintf("a unix socket of type %d, not SOCK_SEQPACKET", kind)}
	}
	return nil
}

// checkReceiver checks that a descriptor can be the receiving end of a channel.
func checkReceiver(fd int) error {
	if err := checkConnected(fd); err != nil {
		return err
	}
	if now := events(fd); now&pollRdhup != 0 && now&pollHup == 0 {
		return &NotAChannelError{"it is the sending end of a channel, not the receiving one"}
	}
	return nil
}

// checkSender checks that a descriptor can be the sending end of a channel.
func checkSender(fd int) error {
	if err := checkConnected(fd); err != nil {
		return err
	}
	// A peer that goes in between makes it a socket that cannot write, too.
	const gone = pollRdhup | pollHup
	if events(fd)&gone == 0 && cannotWrite(fd) && events(fd)&gone == 0 {
		return &NotAChannelError{"it is the receiving end of a channel, not the sending one"}
	}
	return nil
}

// checkListening checks that a descriptor can be a listener.
func checkListening(fd int) error {
	if err := checkKind(fd); err != nil {
		return err
	}
	listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil {
		return &IOError{"look up the state of a socket", err}
	}
	if listens == 0 {
		return &NotAChannelError{"a unix socket that does not listen"}
	}
	return nil
}

// events tells whether the other side of a socket has shut down its writing, as a receiver does (RDHUP), or is gone
// (HUP). It is 0 where a sandbox denies to ask: then no direction is refused.
func events(fd int) int16 {
	fds := []pollFd{{fd: int32(fd), events: pollRdhup}}
	err := poll(fds, 0)
	for err == syscall.EINTR {
		err = poll(fds, 0)
	}
	if err != nil {
		return 0
	}
	return fds[0].revents
}

// cannotWrite tells whether a socket has shut down its writing. Those of foreign pairs that are not one-way have not.
func cannotWrite(fd int) bool {
	// The kernel looks at that first, and only then for the byte, which is nowhere: EFAULT, and nothing is sent.
	const flags = syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT
	_, _, errno := syscall.Syscall6(syscall.SYS_SENDTO, uintptr(fd), 0, 1, flags, 0, 0)
	return errno == syscall.EPIPE
}

// checkConnected checks that a descriptor can be an end of a channel.
func checkConnected(fd int) error {
	if err := checkKind(fd); err != nil {
		return err
	}
	// A socket whose peer has closed still has a peer name.
	switch _, err := syscall.Getpeername(fd); err {
	case nil:
		return nil
	case syscall.ENOTCONN:
		return &NotAChannelError{"a unix socket that is not connected"}
	default:
		return &IOError{"look up the peer of a socket", err}
	}
}

// aboveStreamsOrClosed is aboveStreams that closes it on failure.
func aboveStreamsOrClosed(fd int) (int, error) {
	moved, err := aboveStreams(fd)
	if err != nil {
		closeFd(fd)
		return -1, err
	}
	return moved, nil
}

func closeFd(fd int) {
	// Never again on EINTR: Linux has closed it.
	_ = syscall.Close(fd)
}

func closeFds(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			closeFd(fd)
		}
	}
}

// sendPacket sends one packet, whole or not at all, without waiting.
func sendPacket(fd int, packet []byte, fds []int) error {
	var iov syscall.Iovec
	var msg syscall.Msghdr
	if len(packet) > 0 {
		iov.Base = &packet[0]
		iov.SetLen(len(packet))
	}
	msg.Iov, msg.Iovlen = &iov, 1
	if len(fds) > 0 {
		rights := syscall.UnixRights(fds...)
		msg.Control = &rights[0]
		msg.SetControllen(len(rights))
	}
	const flags = syscall.MSG_NOSIGNAL | syscall.MSG_DONTWAIT
	_, _, errno := syscall.Syscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), flags)
	if errno != 0 {
		return errno
	}
	return nil
}

// A received packet.
type received struct {
	// Its length, which may be more than the buffer holds.
	len int
	fds []int
	// Some descriptors did not make it into this process.
	lost bool
	// Nothing is queued and nobody is left who could send.
	end bool
}

// Room for all descriptors of a packet, and for what a foreign holder of the socket may have asked for
// (credentials, a security label, a pidfd), which must not push out descriptors.
const controlSize = 2048

// inBuffer is what a packet is received into.
type inBuffer struct {
	bytes   [maxPacket]byte
	control [controlSize / 8]uint64 // aligned
}

// recvPacket receives one packet into buffer, without waiting.
func recvPacket(fd int, buffer *inBuffer) (received, error) {
	// MSG_TRUNC asks for the length of the packet even if the buffer is shorter.
	const flags = syscall.MSG_CMSG_CLOEXEC | syscall.MSG_TRUNC | syscall.MSG_DONTWAIT
	for {
		iov := syscall.Iovec{Base: &buffer.bytes[0]}
		iov.SetLen(len(buffer.bytes))
		msg := syscall.Msghdr{Iov: &iov, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&buffer.control))}
		msg.SetControllen(controlSize)
		n, _, errno := syscall.Syscall(syscall.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), flags)
		if errno == syscall.ECONNRESET {
			// The sender closed with bytes unread that were sent backwards to it. Reported once, ahead of
			// what is still queued.
			continue
		}
		if errno != 0 {
			return received{}, errno
		}
		controlLen := int(msg.Controllen)
		if controlLen > controlSize {
			controlLen = controlSize
		}
		bytes := (*[controlSize]byte)(unsafe.Pointer(&buffer.control))[:controlLen]
		packet := received{len: int(n), fds: unpackFds(bytes), lost: msg.Flags&syscall.MSG_CTRUNC != 0}
		for i := range packet.fds {
			var err error
			if packet.fds[i], err = aboveStreams(packet.fds[i]); err != nil {
				packet.lost = true // out of descriptors
			}
		}
		if n == 0 && packet.fds == nil && !packet.lost {
			switch whatNothingMeans(fd) {
			case nothingIsEnd:
				packet.end = true
			case nothingIsMiss:
				continue
			}
		}
		return packet, nil
	}
}

// unpackFds walks over control messages, cmsg(3), and gives the descriptors that were sent.
func unpackFds(control []byte) []int {
	var fds []int
	for len(control) >= syscall.SizeofCmsghdr {
		header := *(*syscall.Cmsghdr)(unsafe.Pointer(&control[0]))
		length := int(header.Len)
		if length < syscall.SizeofCmsghdr || length > len(control) {
			break
		}
		isRights := header.Type == syscall.SCM_RIGHTS
		if header.Level == syscall.SOL_SOCKET && (isRights || header.Type == scmPidfd) {
			for at := syscall.SizeofCmsghdr; at+4 <= length; at += 4 {
				fd := int(*(*int32)(unsafe.Pointer(&control[at])))
				switch {
				case fd < 0: // the error that kept the kernel from opening a pidfd
				case isRights:
					fds = append(fds, fd)
				default:
					closeFd(fd) // a pidfd that nobody here has asked for
				}
			}
		}
		padded := (length + 7) &^ 7
		if padded > len(control) {
			break
		}
		control = control[padded:]
	}
	return fds
}

// Why a receive gave no bytes.
type nothing int

const (
	nothingIsEmptyPacket nothing = iota
	// Nothing is queued and nobody is left who could send.
	nothingIsEnd
	// Packets are queued that it did not see.
	nothingIsMiss
)

func whatNothingMeans(fd int) nothing {
	// POLLRDHUP is set, for good, when the last copy of the peer closes or shuts down.
	peer := []pollFd{{fd: int32(fd), events: pollRdhup}}
	err := poll(peer, 0)
	for err == syscall.EINTR {
		err = poll(peer, 0)
	}
	// Where a sandbox denies these calls, it can only be taken for the end, which is what it nearly always is.
	if err == nil && peer[0].revents&pollRdhup == 0 {
		return nothingIsEmptyPacket
	}
	// A receive that finds the queue empty looks only then whether the sender is gone, which may have sent and
	// closed meanwhile.
	var queued int32
	_, _, errno := syscall.Syscall(
		syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&queued)))
	if errno == 0 && queued > 0 {
		return nothingIsMiss
	}
	return nothingIsEnd
}

type pollFd struct {
	fd      int32
	events  int16
	revents int16
}

// poll waits for events. A negative timeout is forever. It may fail with EINTR.
func poll(fds []pollFd, timeout time.Duration) error {
	var limit *syscall.Timespec
	if timeout >= 0 {
		spec := syscall.NsecToTimespec(int64(timeout))
		limit = &spec
	}
	// Not SYS_POLL: arm64 has none.
	_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(limit)), 0, 8, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func eventFd() (int, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, efdCloexec, 0)
	if errno != 0 {
		return -1, errno
	}
	return aboveStreamsOrClosed(int(fd))
}

func memfdCreate(operation string, flags uintptr) (int, error) {
	name := []byte("wormhole\x00")
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(&name[0])), mfdCloexec|flags, 0)
	if errno != 0 {
		return -1, &IOError{operation, errno}
	}
	moved, err := aboveStreamsOrClosed(int(fd))
	if err != nil {
		return -1, &IOError{operation, err}
	}
	return moved, nil
}

// fillMemfd writes bytes into a fresh memfd.
func fillMemfd(fd int, bytes []byte) error {
	// Going beyond RLIMIT_FSIZE is a signal, SIGXFSZ, in a memfd as well.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err == nil && uint64(len(bytes)) > limit.Cur {
		return syscall.EFBIG
	}
	for at := 0; at < len(bytes); {
		n, err := syscall.Pwrite(fd, bytes[at:], int64(at))
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case n == 0:
			return syscall.EIO
		default:
			at += n
		}
	}
	return nil
}

func fcntl(fd int, command int, argument int) (int, error) {
	for {
		result, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), uintptr(command), uintptr(argument))
		switch errno {
		case 0:
			return int(result), nil
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}

func duplicateFd(fd int) (int, error) {
	return fcntl(fd, syscall.F_DUPFD_CLOEXEC, firstInherited)
}

// rawAddress is the name of a listening socket as the kernel wants it. Package syscall's would take a path
// that begins with an @ for an abstract name.
type rawAddress struct {
	raw  syscall.RawSockaddrUnix
	size uintptr
}

func (a *rawAddress) call(number uintptr, fd int) error {
	_, _, errno := syscall.Syscall(number, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), a.size)
	if errno != 0 {
		return errno
	}
	return nil
}

func (a *rawAddress) connect(fd int) error { return a.call(syscall.SYS_CONNECT, fd) }
func (a *rawAddress) bind(fd int) error    { return a.call(syscall.SYS_BIND, fd) }
