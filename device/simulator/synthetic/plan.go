package synthetic

import (
	"fmt"
	"path"
	"strings"
	"time"
)

// changes lists the files that a run must send and remove, in order.
type changes struct {
	put     []*file // new and changed files, folders and symlinks
	removed []*file
	queued  map[*file]bool
}

func (c *changes) add(f *file) {
	if !c.queued[f] {
		c.queued[f] = true
		c.put = append(c.put, f)
	}
}

// contents holds the content of a device: the rows of its manifest, and the
// files that may change on a day.
type contents struct {
	m     *maker
	shape *shape
	conf  *Config

	rows    map[string]*file // by name
	order   []*file          // in the order of creation; nil if removed
	changed *changes
	inodes  uint64
	s       stream // random stream of the day
	day     int
	from    time.Time // start of the day
	to      time.Time // end of the day

	plists, caches, photos, logs, attachments []*file
	databases                                 []*file
	bundles                                   []string // bundle ids of apps and plug-ins
	shots                                     int      // number of photos taken, even if deleted since
	keychain                                  *file
	newPhotos, newAttachments                 []*file
}

// begin prepares the changes of a day.
func (c *contents) begin(day int) {
	c.day = day
	c.s = c.m.stream("day", day)
	c.changed = &changes{queued: map[*file]bool{}}
	c.newPhotos, c.newAttachments = nil, nil
	c.to = c.m.first.Add(time.Duration(day)*24*time.Hour - 5*time.Minute)
	c.from = c.to.Add(-24*time.Hour + 10*time.Minute)
	if day == 0 {
		c.from = c.to.Add(-2 * 365 * 24 * time.Hour)
	}
}

// moment returns a random time of the day, in Unix seconds. On day 0 it returns a time
// in the two years before the first backup.
func (c *contents) moment() int64 {
	return c.from.Unix() + c.s.Int64N(c.to.Unix()-c.from.Unix())
}

// create adds a new file and those of its folders that do not exist.
func (c *contents) create(f file) *file {
	if f.born == 0 {
		f.born = c.moment()
	}
	if f.modified == 0 {
		f.modified = f.born
	}
	if f.mode == 0 {
		f.mode = modeFile
	}
	if f.class == 0 && f.hasBlob() {
		f.class = 3
	}
	if f.source == "" {
		f.source = f.name()
	}
	if old := c.rows[f.name()]; old != nil {
		return old
	}
	if f.path != "" {
		c.touchFolder(f.domain, parent(f.path), f.born)
	}
	c.inodes += uint64(1 + c.s.IntN(6))
	f.inode = c.inodes
	made := &f
	c.rows[f.name()] = made
	c.order = append(c.order, made)
	c.changed.add(made)
	return made
}

// touchFolder creates a folder. If the folder exists, touchFolder updates its time of
// modification, since an entry was added, removed or replaced.
func (c *contents) touchFolder(domain, dir string, at int64) {
	if f := c.rows[domain+"-"+dir]; f != nil {
		if at > f.modified {
			f.modified = at
			c.changed.add(f)
		}
		return
	}
	c.create(file{domain: domain, path: dir, kind: kindFolder, mode: modeFolder, born: at})
}

func (c *contents) folder(domain, dir string) {
	c.create(file{domain: domain, path: dir, kind: kindFolder, mode: modeFolder})
}

// rewrite replaces a file by a new file with the next version, as apps do.
func (c *contents) rewrite(f *file) {
	f.version++
	f.modified = c.moment()
	c.inodes += uint64(1 + c.s.IntN(6))
	f.inode = c.inodes
	c.touchFolder(f.domain, parent(f.path), f.modified)
	c.changed.add(f)
}

// modify changes a file in place. Databases and logs change like this.
func (c *contents) modify(f *file) {
	f.version++
	f.modified = c.to.Unix() - c.s.Int64N(7200)
	c.changed.add(f)
}

func (c *contents) remove(f *file) {
	delete(c.rows, f.name())
	for i, o := range c.order {
		if o == f {
			c.order[i] = nil
		}
	}
	c.touchFolder(f.domain, parent(f.path), c.moment())
	c.changed.removed = append(c.changed.removed, f)
}

// takePhotos adds photos with thumbnails. The names have consecutive numbers, as from
// a camera.
func (c *contents) takePhotos(n int) {
	for range n {
		c.shots++
		kind, ext := kindHEIC, "HEIC"
		if c.s.IntN(3) == 0 {
			kind, ext = kindJPEG, "JPG"
		}
		name := fmt.Sprintf("IMG_%04d.%s", c.shots%10000, ext)
		dir := fmt.Sprintf("Media/DCIM/%dAPPLE", 100+c.shots/1000)
		at := c.moment()
		photo := c.create(file{domain: "CameraRollDomain", path: dir + "/" + name, kind: kind, born: at, xattrs: c.s.IntN(2) == 0,
			size: c.s.skewed(c.shape.photoMin, c.shape.photoMax)})
		c.create(file{domain: "CameraRollDomain", kind: kindJPEG, born: at, size: c.s.between(c.shape.thumb/2, c.shape.thumb*3/2),
			path: thumbnail(photo)})
		c.photos = append(c.photos, photo)
		c.newPhotos = append(c.newPhotos, photo)
	}
}

func thumbnail(photo *file) string {
	return "Media/PhotoData/Thumbnails/V2/" + strings.TrimPrefix(photo.path, "Media/") + "/5005.JPG"
}

func (c *contents) takeMovie() {
	c.shots++
	c.create(file{domain: "CameraRollDomain", path: fmt.Sprintf("Media/DCIM/%dAPPLE/IMG_%04d.MOV", 100+c.shots/1000, c.shots%10000),
		kind: kindMovie, size: c.s.between(c.shape.videoSize*3/4, c.shape.videoSize*5/4)})
}

// attach adds message attachments. Half of them have the same content as photos of the
// library.
func (c *contents) attach(n int) {
	for range n {
		original := pick(c.s, c.photos)
		f := file{domain: "MediaDomain", kind: original.kind, source: original.source, size: original.size}
		name := path.Base(original.path)
		if c.s.IntN(2) == 0 {
			f.source, f.size, f.kind = "", c.s.skewed(20<<10, c.shape.photoMax/2), kindJPEG
			name = fmt.Sprintf("%d.jpeg", c.s.IntN(1e9))
		}
		box := c.s.hex(1)
		f.path = fmt.Sprintf("Library/SMS/Attachments/%s/%02d/%s/%s", box, c.s.IntN(16), c.s.uuid(), name)
		made := c.create(f)
		c.attachments = append(c.attachments, made)
		c.newAttachments = append(c.newAttachments, made)
	}
}

// sample returns n different members of list, or all if there are fewer.
func sample(s stream, list []*file, n int) []*file {
	n = min(n, len(list))
	picked := make([]*file, 0, n)
	for _, i := range s.Perm(len(list))[:n] {
		picked = append(picked, list[i])
	}
	return picked
}

// nextDay makes the changes that a day of use causes.
func (c *contents) nextDay() {
	for _, f := range sample(c.s, c.plists, c.s.between(c.shape.plistsPerDay*3/4, c.shape.plistsPerDay*5/4)) {
		c.rewrite(f)
	}
	for _, f := range sample(c.s, c.caches, c.s.between(c.shape.cachesPerDay*3/4, c.shape.cachesPerDay*5/4)) {
		c.rewrite(f)
	}
	c.rewrite(c.keychain)
	c.takePhotos(c.s.between(c.shape.photosPerDay/2, c.shape.photosPerDay*3/2+1))
	if c.day%5 == 3 {
		c.takeMovie()
	}
	c.attach(c.s.between(1, 2+c.shape.photosPerDay/2))
	if c.day%2 == 0 && len(c.photos) > 4 {
		c.deletePhoto(c.s.IntN(len(c.photos) - len(c.newPhotos)))
	}
	if c.day%6 == 5 {
		i := c.s.IntN(len(c.caches))
		c.remove(c.caches[i])
		c.caches = append(c.caches[:i], c.caches[i+1:]...)
	}
	for _, f := range c.logs {
		c.growLog(f)
	}
	for _, f := range c.databases {
		c.modify(f)
	}
}

func (c *contents) deletePhoto(i int) {
	photo := c.photos[i]
	c.photos = append(c.photos[:i], c.photos[i+1:]...)
	thumb := c.rows[photo.domain+"-"+thumbnail(photo)]
	c.remove(photo)
	c.remove(thumb)
}

// logDays is the number of days after which a log is rotated.
const logDays = 5

func (c *contents) growLog(f *file) {
	if f.until-f.since+1 >= logDays {
		old := c.rows[f.name()+".1"]
		if old == nil {
			old = c.create(file{domain: f.domain, path: f.path + ".1", kind: kindLog, source: f.source, size: f.size, class: f.class})
		} else {
			c.rewrite(old)
		}
		old.since, old.until, old.modified, old.inode = f.since, f.until, f.modified, f.inode
		f.since = c.day
		c.inodes++
		f.inode = c.inodes
	}
	f.until = c.day
	c.modify(f)
}
