//go:build linux

package wormhole

import (
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// Blob is immutable bytes in shared memory, to send bulk data in a message: made once, sent to many.
//
// A *Blob is a field of a message like any other value. What is sent is a descriptor, whatever the size, and each
// process that receives it maps the same memory: no JSON, no copy. The memory is a memfd which is sealed: nobody can
// change it or its size any more. A receiver checks that before it maps what came.
//
// The bytes are there for [Blob.View], and for ReadAt, which copies them. There is no method that simply returns
// them, because a slice would outlive the mapping: Close, or the garbage collector, would make reading it a
// crash.
type Blob struct {
	mu     sync.Mutex
	fd     int
	users  int
	open   bool
	closed bool
	memory []byte
}

var _ io.ReaderAt = (*Blob)(nil)

// NewBlob makes a blob with a copy of bytes.
func NewBlob(bytes []byte) (*Blob, error) {
	fd, err := memfdCreate("create the memfd (memfd_create) of a blob", mfdSealing)
	if err != nil {
		return nil, err
	}
	err = fillMemfd(fd, bytes)
	if err == nil {
		_, err = fcntl(fd, fAddSeals, sealWrite|sealShrink|sealGrow|sealSeal)
	}
	if err != nil {
		closeFd(fd)
		return nil, &IOError{"fill a blob", err}
	}
	b := new(Blob)
	if err := b.adopt(fd); err != nil {
		return nil, err
	}
	return b, nil
}

// BlobFromFile makes a blob of a memfd that came from elsewhere, which it duplicates. It fails with a
// [*NotABlobError] unless that is sealed against writing, growing and shrinking.
func BlobFromFile(file *os.File) (*Blob, error) {
	fd, err := duplicateFile(file)
	if err != nil {
		return nil, &IOError{"duplicate the descriptor of a blob", err}
	}
	b := new(Blob)
	if err := b.adopt(fd); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Blob) adopt(fd int) error {
	return b.adoptWithin(fd, func(int64) error { return nil })
}

// adoptWithin is adopt that asks whether there may be a blob of that size before it maps it.
func (b *Blob) adoptWithin(fd int, allow func(size int64) error) error {
	memory, err := mapSealed(fd, allow)
	if err != nil {
		closeFd(fd)
		return err
	}
	b.fd, b.memory, b.open = fd, memory, true
	// View keeps b, so this does not take the memory away from under it.
	runtime.SetFinalizer(b, func(b *Blob) { _ = b.Close() })
	return nil
}

func mapSealed(fd int, allow func(size int64) error) ([]byte, error) {
	seals, err := fcntl(fd, fGetSeals, 0)
	switch {
	case err != nil:
		return nil, &NotABlobError{"it is not a memfd"}
	case seals&sealWrite == 0:
		return nil, &NotABlobError{"it is not sealed against writing"}
	case seals&sealShrink == 0:
		return nil, &NotABlobError{"it is not sealed against shrinking"}
	case seals&sealGrow == 0:
		return nil, &NotABlobError{"it is not sealed against growing"}
	}
	const mapping = "map a blob"
	// Reading a huge page that is not there yet is SIGBUS once the machine is out of them.
	var system syscall.Statfs_t
	if err := syscall.Fstatfs(fd, &system); err != nil {
		return nil, &IOError{mapping, err}
	}
	if system.Type != tmpfsMagic {
		return nil, &NotABlobError{"it is made of huge pages"}
	}
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return nil, &IOError{mapping, err}
	}
	if err := allow(stat.Size); err != nil {
		return nil, err
	}
	if stat.Size == 0 {
		return nil, nil // which cannot be mapped
	}
	if stat.Size != int64(int(stat.Size)) {
		return nil, &IOError{mapping, syscall.EFBIG}
	}
	// Older kernels refuse a shared mapping of what is sealed. A private one shows the same pages.
	memory, err := syscall.Mmap(fd, 0, int(stat.Size), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		return nil, &IOError{mapping, err}
	}
	return memory, nil
}

// Len is the number of bytes. It is 0 for a blob that is closed.
func (b *Blob) Len() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0
	}
	return len(b.memory)
}

// View calls read with the bytes, which are there until read returns and must not be kept or written to: both would
// crash the program. Close waits for nobody: the memory goes when the last View is over.
func (b *Blob) View(read func(bytes []byte) error) error {
	_, release, err := b.hold()
	if err != nil {
		return err
	}
	defer release()
	return read(b.memory[:len(b.memory):len(b.memory)])
}

// ReadAt copies bytes, as [io.ReaderAt] has it. With [io.NewSectionReader] that is a reader.
func (b *Blob) ReadAt(p []byte, offset int64) (n int, err error) {
	viewed := b.View(func(bytes []byte) error {
		if offset < 0 {
			return syscall.EINVAL
		}
		if offset < int64(len(bytes)) {
			n = copy(p, bytes[offset:])
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, viewed
}

// Close gives up the descriptor and the memory. Closing twice says [ErrClosed].
func (b *Blob) Close() error {
	if b == nil {
		return ErrClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.closed = true
	b.closeIfUnused()
	return nil
}

func (b *Blob) closeIfUnused() {
	if !b.closed || b.users > 0 || !b.open {
		return
	}
	if b.memory != nil {
		_ = syscall.Munmap(b.memory)
		b.memory = nil
	}
	closeFd(b.fd)
	b.open = false
	runtime.SetFinalizer(b, nil)
}

func (b *Blob) hold() (int, func(), error) {
	if b == nil {
		return -1, nil, ErrClosed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || !b.open {
		return -1, nil, ErrClosed
	}
	b.users++
	return b.fd, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.users--
		b.closeIfUnused()
	}, nil
}

// MarshalJSON fails: a blob can only travel in a message of this package.
func (b *Blob) MarshalJSON() ([]byte, error) { return nil, errOutsideMessage }

// UnmarshalJSON fails: a blob can only travel in a message of this package.
func (b *Blob) UnmarshalJSON([]byte) error { return errOutsideMessage }
