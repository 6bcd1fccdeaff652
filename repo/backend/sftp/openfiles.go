package sftp

import (
	"io/fs"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

const (
	// maxOpen is how many files stay open after they were read. A restore reads many
	// blocks of a few packs.
	maxOpen = 16
	// maxIdle is how long a file stays open. Until then, a server does not free the space
	// of a file that another process has deleted.
	maxIdle = 10 * time.Second
)

// openFiles are files that were read and may soon be read again.
type openFiles struct {
	mu    sync.Mutex
	files map[string]*openFile
	timer *time.Timer
}

// openFile is an open file. Its fields are guarded by openFiles.mu.
type openFile struct {
	*sftp.File
	size  int64
	time  time.Time
	used  time.Time // when it was last read
	users int       // how many goroutines read it now
	gone  bool      // not in openFiles; the last user closes it
}

// isSame reports whether info describes the open file, as far as a server can tell.
func (f *openFile) isSame(info fs.FileInfo) bool {
	return info.Mode().IsRegular() && info.Size() == f.size && info.ModTime().Equal(f.time)
}

// use returns the open file of this name, or nil. The caller must call release.
func (o *openFiles) use(name string) *openFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[name]
	if f != nil {
		f.users++
	}
	return f
}

// add keeps a file that the caller has opened and uses.
func (o *openFiles) add(name string, file *sftp.File, info fs.FileInfo) *openFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := &openFile{File: file, size: info.Size(), time: info.ModTime(), used: time.Now(), users: 1}
	if o.files == nil {
		o.files = make(map[string]*openFile)
	}
	if old := o.files[name]; old != nil {
		o.remove(name, old)
	}
	if len(o.files) >= maxOpen {
		o.removeOldest()
	}
	o.files[name] = f
	if o.timer == nil {
		o.timer = time.AfterFunc(maxIdle, o.removeIdle)
	}
	return f
}

func (o *openFiles) release(f *openFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.users--
	f.used = time.Now()
	if f.gone && f.users == 0 {
		go f.Close()
	}
}

// drop closes the file of this name, if it is open.
func (o *openFiles) drop(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.files[name]; f != nil {
		o.remove(name, f)
	}
}

func (o *openFiles) remove(name string, f *openFile) {
	delete(o.files, name)
	f.gone = true
	if f.users == 0 {
		go f.Close() // nobody waits for the answer
	}
}

func (o *openFiles) removeOldest() {
	var oldest string
	for name, f := range o.files {
		if oldest == "" || f.used.Before(o.files[oldest].used) {
			oldest = name
		}
	}
	o.remove(oldest, o.files[oldest])
}

// removeIdle closes the files that nobody has read for some time.
func (o *openFiles) removeIdle() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, f := range o.files {
		if f.users == 0 && time.Since(f.used) >= maxIdle {
			o.remove(name, f)
		}
	}
	o.timer = nil
	if len(o.files) > 0 {
		o.timer = time.AfterFunc(maxIdle, o.removeIdle)
	}
}

// forget forgets all files without closing them: the connection has ended.
func (o *openFiles) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.files)
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}
