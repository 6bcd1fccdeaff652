package synthetic

import (
	"fmt"
	"strings"
)

var (
	vendors     = strings.Fields("apple google example northwind contoso fabrikam tailspin acme initech hooli umbrella globex")
	homeFolders = strings.Fields("Preferences Accounts Calendar Mail ConfigurationProfiles Assistant SpringBoard Keyboard Logs Suggestions")
	extensions  = strings.Fields("ShareExtension WidgetExtension NotificationService IntentsExtension StickerPack QuickLook Keyboard WatchApp")
)

// firstDay fills an empty device with the content of day 0. About 70 % of the rows
// are folders, as in real manifests.
func (c *contents) firstDay() {
	c.homeFiles()
	for i := range c.shape.apps {
		c.app(i)
	}
	c.takePhotos(c.shape.photos)
	for range c.shape.videos {
		c.takeMovie()
	}
	c.attach(c.shape.attachments)
	for _, schema := range schemas() {
		c.databases = append(c.databases, c.create(file{domain: schema.domain, path: schema.path, kind: kindDatabase, class: schema.class,
			sizeOff: schema.sizeOff, modified: c.to.Unix() - c.s.Int64N(7200), db: &database{schema: schema}}))
	}
	c.oddities()
	c.plugins()
}

func (c *contents) homeFiles() {
	for _, domain := range []string{"HomeDomain", "RootDomain", "CameraRollDomain", "MediaDomain", "WirelessDomain", "SystemPreferencesDomain",
		"KeychainDomain", "HealthDomain", "HomeKitDomain", "InstallDomain", "KeyboardDomain", "DatabaseDomain", "TonesDomain"} {
		c.folder(domain, "")
	}
	c.plists = append(c.plists, c.create(file{domain: "HomeDomain", path: "Library/Preferences/.GlobalPreferences.plist", kind: kindPlist, size: 30}))
	for i := range c.shape.homePlists {
		domain, dir := "HomeDomain", "Library/"+pick(c.s, homeFolders)
		switch i % 16 {
		case 12:
			domain, dir = "RootDomain", "Library/Preferences"
		case 13:
			domain, dir = "SystemPreferencesDomain", "SystemConfiguration"
		case 14:
			domain, dir = "WirelessDomain", "Library/Preferences"
		case 15:
			domain, dir = "HomeKitDomain", "Library/homed"
		}
		c.plists = append(c.plists, c.create(file{domain: domain, kind: kindPlist, size: c.s.skewed(4, 60), class: uint32(3 + c.s.IntN(8)/7),
			path: fmt.Sprintf("%s/com.apple.%s.%s.plist", dir, c.m.words.rareWord(c.s), c.m.words.rareWord(c.s))}))
	}
	for i := range c.shape.logs {
		c.logs = append(c.logs, c.create(file{domain: "HomeDomain", path: fmt.Sprintf("Library/Logs/%s-%d.log", c.m.words.rareWord(c.s), i), kind: kindLog,
			size: c.s.between(c.shape.logLines/2, c.shape.logLines*3/2), since: -i % logDays, modified: c.to.Unix() - c.s.Int64N(7200)}))
	}
	c.keychain = c.create(file{domain: "KeychainDomain", path: "keychain-backup.plist", kind: kindKeychain, size: c.shape.keychain, class: 1})
}

// app adds the container of an app and, for some apps, a shared container, too.
func (c *contents) app(i int) {
	bundle := fmt.Sprintf("com.%s.%s%d", pick(c.s, vendors), c.m.words.rareWord(c.s), i)
	c.bundles = append(c.bundles, bundle)
	domain := "AppDomain-" + bundle
	for _, dir := range []string{"Documents", "Library/Preferences", "Library/Cookies", "Library/Application Support", "Library/Saved Application State", "SystemData", "tmp"} {
		c.folder(domain, dir)
	}
	for j := range c.shape.plistsPerApp {
		name := bundle
		if j > 0 {
			name = fmt.Sprintf("com.%s.%s", pick(c.s, vendors), c.m.words.rareWord(c.s))
		}
		c.plists = append(c.plists, c.create(file{domain: domain, path: "Library/Preferences/" + name + ".plist", kind: kindPlist, size: c.s.skewed(3, 40)}))
	}
	// An app has a few folders of caches. Each folder has some files.
	count := c.s.between(c.shape.cachesPerApp/3, c.shape.cachesPerApp*5/3+1)
	folder := ""
	for j := range count {
		if j%6 == 0 {
			folder = "Library/Application Support/" + c.m.words.name(c.s)
		}
		f := file{domain: domain, path: fmt.Sprintf("%s/%s-%d.json", folder, c.m.words.rareWord(c.s), j), kind: kindJSON, size: c.s.skewed(1, 60)}
		switch c.s.IntN(8) {
		case 0:
			f.path, f.kind, f.size = strings.TrimSuffix(f.path, "json")+"txt", kindText, c.s.skewed(1, 80)
		case 1:
			f.path, f.kind, f.size = strings.TrimSuffix(f.path, "json")+"jpg", kindJPEG, c.s.skewed(1<<10, 24<<10)
		}
		made := c.create(f)
		if made.kind == kindJSON {
			c.caches = append(c.caches, made)
		}
	}
	if i%4 == 0 {
		group := "AppDomainGroup-group." + strings.TrimPrefix(bundle, "com.")
		c.folder(group, "Library/Caches")
		c.plists = append(c.plists, c.create(file{domain: group, path: "Library/Preferences/group." + bundle + ".plist", kind: kindPlist, size: 6}))
	}
}

// oddities adds files that backup programs easily get wrong.
func (c *contents) oddities() {
	const docs = "AppDomain-com.example.documents"
	text := func(path string) { c.create(file{domain: docs, path: path, kind: kindText, size: 6}) }
	text("Documents/readme.txt")
	text("Documents/README.TXT")                      // differs by case only
	text("Documents/R\u00e9sum\u00e9.txt")            // composed
	text("Documents/Re\u0301sume\u0301.txt")          // decomposed
	text("Documents/Straße/日本語のメモ 📝.txt")             // not Latin
	text("Documents/a b/ leading and trailing .txt ") // spaces
	text("Documents/50% off: \"what?\" <now>|\\.txt") // name not allowed on some other systems
	c.create(file{domain: "CameraRollDomain", path: "Media/DCIM/100APPLE/Übung 日本.JPG", kind: kindJPEG, size: 30 << 10})
	for i := range 3 {
		c.create(file{domain: docs, path: fmt.Sprintf("Documents/empty-%d", i), kind: kindEmpty})
	}
	c.create(file{domain: "HomeDomain", path: "Library/Safari/com.apple.empty.lock", kind: kindEmpty})
	c.create(file{domain: docs, path: "Documents/In the cloud.pdf", kind: kindDataless, flags: flagDataless, sizeOff: 5 << 20})
	c.create(file{domain: docs, path: "Library/WebKit/WebsiteData/IndexedDB/v0", kind: kindSymlink, mode: modeSymlink,
		target: "/var/mobile/Containers/Data/Application/EC1738DC-390C-470E-A529-E7B55C60828C/Library/WebKit/WebsiteData/IndexedDB"})
	c.create(file{domain: "HomeDomain", path: "Library/Caches/link", kind: kindSymlink, mode: modeSymlink, target: "../../Library/Preferences"})
	c.create(file{domain: "DatabaseDomain", path: "timezone/localtime", kind: kindSymlink, mode: modeSymlink, target: "/var/db/timezone/zoneinfo/Europe/Berlin"})
}

// plugins adds empty containers of app extensions until folders make up 70 % of the
// rows.
func (c *contents) plugins() {
	files := 0
	for _, f := range c.order {
		if f.kind != kindFolder {
			files++
		}
	}
	for i := 0; (len(c.order)-files)*3 < files*7; i++ {
		bundle := fmt.Sprintf("%s.%s%d", pick(c.s, c.bundles[:c.shape.apps]), pick(c.s, extensions), i)
		c.bundles = append(c.bundles, bundle)
		for _, dir := range []string{"Documents", "Library/Preferences", "Library/Caches", "SystemData", "tmp"} {
			c.folder("AppDomainPlugin-"+bundle, dir)
		}
	}
}
