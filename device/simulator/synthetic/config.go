package synthetic

import (
	"errors"
	"fmt"
	"time"
)

// Scale says how much content a device has.
type Scale int

// The scales. The sizes are those of one device on day 0.
const (
	Tiny   Scale = iota // about 2 MB in 135 files, for unit tests
	Small               // about 60 MB in 2,500 files
	Medium              // about 600 MB in 20,000 files
	Large               // about 3 GB in 60,000 files
	Crowd               // about 530 MB in 100,000 files, nearly all of them small
	Demo                // about 28 MB in 1,100 files, for the demo
	Throng              // about 2.5 GB in 500,000 files, nearly all of them small

	lastScale = Throng
)

// ScaleUsage describes the scales, for the help of a program's flag.
const ScaleUsage = "`size` of the devices: tiny (2 MB each), small (60 MB), medium (600 MB), large (3 GB), crowd (530 MB in 100,000 files) or throng (2.5 GB in 500,000 files)"

var scaleNames = []string{"tiny", "small", "medium", "large", "crowd", "demo", "throng"}

// String returns the name that ParseScale parses.
func (s Scale) String() string {
	if s < 0 || int(s) >= len(scaleNames) {
		return fmt.Sprintf("Scale(%d)", int(s))
	}
	return scaleNames[s]
}

// ParseScale parses "tiny", "small", "medium", "large", "crowd", "demo" or "throng".
func ParseScale(name string) (Scale, error) {
	for i, n := range scaleNames {
		if n == name {
			return Scale(i), nil
		}
	}
	return 0, fmt.Errorf("synthetic: unknown scale %q: want tiny, small, medium, large, crowd, demo or throng", name)
}

// Encryption says which devices make encrypted backups.
type Encryption int

// The encryption policies.
const (
	EncryptNone      Encryption = iota
	EncryptAll                  // every device
	EncryptAlternate            // the second, fourth … device
)

// Config describes a series. The zero value is usable.
type Config struct {
	Seed       uint64
	Devices    int // 0 means 1
	Scale      Scale
	Encryption Encryption
	Password   string // password of the encrypted devices; empty means DefaultPassword

	// Start is the time of the first backup of the first device, in whole seconds;
	// zero means DefaultStart.
	Start time.Time
	// StateDir is the folder in which New creates a state folder for the live databases.
	// Close removes the state folder. Empty means the system's temporary folder.
	StateDir string

	// CompactDBs makes backups have compacted copies of databases (VACUUM INTO), as real
	// backups are reported to have. Compacting moves pages. Without CompactDBs, backups
	// have copies of the live pages.
	CompactDBs bool
	// RealRounds gives keybags the round counts of real devices. Such a keybag takes
	// seconds to unlock.
	RealRounds bool
	// EmptyAsZeroBytes makes encrypted backups store an empty file as 0 bytes instead of
	// 16.
	EmptyAsZeroBytes bool

	// FullBackupDay is the day (1 or later) of a full backup. On that day every blob is
	// sent again, and an encrypted device creates a new keybag and new keys. 0 means
	// never.
	FullBackupDay int
	// PasswordChangeDay is the day (1 or later) from which encrypted devices use
	// NewPassword. The backup of that day is a full one with new keys. 0 means never.
	PasswordChangeDay int
	NewPassword       string
}

// DefaultPassword is the default of Config.Password.
const DefaultPassword = "synthetic"

// DefaultStart is the default of Config.Start.
var DefaultStart = time.Date(2026, time.January, 5, 6, 30, 0, 0, time.UTC)

const maxDevices = 1000

var errConfig = errors.New("synthetic: bad configuration")

// complete checks the configuration and sets defaults.
func (c Config) complete() (Config, error) {
	if c.Devices == 0 {
		c.Devices = 1
	}
	if c.Devices < 0 || c.Devices > maxDevices {
		return c, fmt.Errorf("%w: %d devices, want 1 to %d", errConfig, c.Devices, maxDevices)
	}
	if c.Scale < Tiny || c.Scale > lastScale {
		return c, fmt.Errorf("%w: %v", errConfig, c.Scale)
	}
	if c.PasswordChangeDay > 0 && c.NewPassword == "" {
		return c, fmt.Errorf("%w: a password change to an empty password", errConfig)
	}
	if c.Password == "" {
		c.Password = DefaultPassword
	}
	if c.Start.IsZero() {
		c.Start = DefaultStart
	}
	c.Start = c.Start.UTC().Truncate(time.Second)
	return c, nil
}

func (c Config) encrypted(device int) bool {
	return c.Encryption == EncryptAll || c.Encryption == EncryptAlternate && device%2 == 1
}

// fullRun reports whether the run of a day is a full one, which sends everything.
func (c Config) fullRun(day int, encrypted bool) bool {
	return day == 0 || day == c.FullBackupDay || encrypted && day == c.PasswordChangeDay
}

// shape holds the numbers of a scale: the numbers and sizes of files and rows on day
// 0, and the numbers of new files and rows on each later day.
type shape struct {
	apps, plistsPerApp, cachesPerApp, homePlists, logs int

	photos, photoMin, photoMax, thumb int // sizes in bytes
	videos, videoSize, attachments    int

	messages, assets, chats, health, visits, notes, calls, contacts int

	photosPerDay, messagesPerDay, chatsPerDay, healthPerDay, visitsPerDay int
	plistsPerDay, cachesPerDay, logLines                                  int

	iconSize, keychain int
}

var shapes = [...]shape{
	Tiny: {
		apps: 6, plistsPerApp: 4, cachesPerApp: 6, homePlists: 24, logs: 3,
		photos: 7, photoMin: 30 << 10, photoMax: 120 << 10, thumb: 3 << 10, videos: 1, videoSize: 280 << 10, attachments: 5,
		messages: 120, assets: 40, chats: 80, health: 400, visits: 60, notes: 12, calls: 20, contacts: 20,
		photosPerDay: 1, messagesPerDay: 8, chatsPerDay: 6, healthPerDay: 30, visitsPerDay: 8,
		plistsPerDay: 8, cachesPerDay: 4, logLines: 40, iconSize: 1 << 10, keychain: 12 << 10,
	},
	Small: {
		apps: 60, plistsPerApp: 8, cachesPerApp: 22, homePlists: 320, logs: 12,
		photos: 60, photoMin: 50 << 10, photoMax: 1200 << 10, thumb: 12 << 10, videos: 1, videoSize: 3 << 20, attachments: 30,
		messages: 8000, assets: 3000, chats: 5000, health: 20000, visits: 2000, notes: 200, calls: 400, contacts: 250,
		photosPerDay: 2, messagesPerDay: 80, chatsPerDay: 60, healthPerDay: 300, visitsPerDay: 60,
		plistsPerDay: 40, cachesPerDay: 25, logLines: 200, iconSize: 10 << 10, keychain: 100 << 10,
	},
	Demo: {
		apps: 30, plistsPerApp: 8, cachesPerApp: 20, homePlists: 160, logs: 8,
		photos: 28, photoMin: 50 << 10, photoMax: 1200 << 10, thumb: 12 << 10, videos: 1, videoSize: 3 << 20, attachments: 15,
		messages: 4000, assets: 1500, chats: 2500, health: 10000, visits: 1000, notes: 100, calls: 200, contacts: 125,
		photosPerDay: 2, messagesPerDay: 60, chatsPerDay: 40, healthPerDay: 200, visitsPerDay: 40,
		plistsPerDay: 25, cachesPerDay: 15, logLines: 120, iconSize: 10 << 10, keychain: 60 << 10,
	},
	Medium: {
		apps: 300, plistsPerApp: 12, cachesPerApp: 45, homePlists: 900, logs: 40,
		photos: 420, photoMin: 50 << 10, photoMax: 2400 << 10, thumb: 14 << 10, videos: 2, videoSize: 25 << 20, attachments: 200,
		messages: 60000, assets: 25000, chats: 40000, health: 150000, visits: 12000, notes: 1200, calls: 2000, contacts: 600,
		photosPerDay: 5, messagesPerDay: 300, chatsPerDay: 250, healthPerDay: 1500, visitsPerDay: 250,
		plistsPerDay: 120, cachesPerDay: 120, logLines: 400, iconSize: 10 << 10, keychain: 480 << 10,
	},
	Large: {
		apps: 700, plistsPerApp: 14, cachesPerApp: 60, homePlists: 1500, logs: 60,
		photos: 1450, photoMin: 50 << 10, photoMax: 4 << 20, thumb: 16 << 10, videos: 4, videoSize: 60 << 20, attachments: 700,
		messages: 200000, assets: 80000, chats: 120000, health: 500000, visits: 25000, notes: 4000, calls: 5000, contacts: 1200,
		photosPerDay: 10, messagesPerDay: 600, chatsPerDay: 500, healthPerDay: 3000, visitsPerDay: 400,
		plistsPerDay: 250, cachesPerDay: 250, logLines: 600, iconSize: 9 << 10, keychain: 480 << 10,
	},
	Crowd: {
		apps: 1000, plistsPerApp: 45, cachesPerApp: 54, homePlists: 1500, logs: 60,
		photos: 60, photoMin: 50 << 10, photoMax: 1200 << 10, thumb: 12 << 10, videos: 1, videoSize: 3 << 20, attachments: 30,
		messages: 8000, assets: 3000, chats: 5000, health: 20000, visits: 2000, notes: 200, calls: 400, contacts: 250,
		photosPerDay: 2, messagesPerDay: 80, chatsPerDay: 60, healthPerDay: 300, visitsPerDay: 60,
		plistsPerDay: 250, cachesPerDay: 250, logLines: 200, iconSize: 2 << 10, keychain: 480 << 10,
	},
	Throng: {
		apps: 5000, plistsPerApp: 45, cachesPerApp: 54, homePlists: 1500, logs: 60,
		photos: 60, photoMin: 50 << 10, photoMax: 1200 << 10, thumb: 12 << 10, videos: 1, videoSize: 3 << 20, attachments: 30,
		messages: 8000, assets: 3000, chats: 5000, health: 20000, visits: 2000, notes: 200, calls: 400, contacts: 250,
		photosPerDay: 2, messagesPerDay: 80, chatsPerDay: 60, healthPerDay: 300, visitsPerDay: 60,
		plistsPerDay: 250, cachesPerDay: 250, logLines: 200, iconSize: 2 << 10, keychain: 480 << 10,
	},
}
