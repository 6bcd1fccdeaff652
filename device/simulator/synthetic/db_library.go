package synthetic

import (
	"fmt"
	"path"
	"time"
)

var photosSchema = schema{
	domain: "CameraRollDomain", path: "Media/PhotoData/Photos.sqlite", class: 3, sizeOff: 8192,
	tables: `
CREATE TABLE ZASSET (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZKIND INTEGER, ZFAVORITE INTEGER, ZHIDDEN INTEGER, ZTRASHEDSTATE INTEGER, ZWIDTH INTEGER, ZHEIGHT INTEGER, ZADDITIONALATTRIBUTES INTEGER, ZADDEDDATE TIMESTAMP, ZDATECREATED TIMESTAMP, ZMODIFICATIONDATE TIMESTAMP, ZSORTTOKEN TIMESTAMP, ZLATITUDE FLOAT, ZLONGITUDE FLOAT, ZDIRECTORY VARCHAR, ZFILENAME VARCHAR, ZUNIFORMTYPEIDENTIFIER VARCHAR, ZUUID VARCHAR, ZOVERALLAESTHETICSCORE FLOAT);
CREATE TABLE ZADDITIONALASSETATTRIBUTES (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZASSET INTEGER, ZORIGINALFILESIZE INTEGER, ZVIEWCOUNT INTEGER, ZPENDINGVIEWCOUNT INTEGER, ZTIMEZONEOFFSET INTEGER, ZEXIFTIMESTAMPSTRING VARCHAR, ZORIGINALFILENAME VARCHAR, ZORIGINALHASH VARCHAR, ZTIMEZONENAME VARCHAR, ZMASTERFINGERPRINT VARCHAR, ZREVERSELOCATIONDATA BLOB, ZSCENEPRINT BLOB);
CREATE TABLE ZGENERICALBUM (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZKIND INTEGER, ZCACHEDCOUNT INTEGER, ZTITLE VARCHAR, ZUUID VARCHAR);
CREATE TABLE Z_28ASSETS (Z_28ALBUMS INTEGER, Z_3ASSETS INTEGER, Z_FOK_3ASSETS INTEGER, PRIMARY KEY (Z_28ALBUMS, Z_3ASSETS));
CREATE TABLE ZMOMENT (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZCACHEDCOUNT INTEGER, ZSTARTDATE TIMESTAMP, ZTITLE VARCHAR, ZUUID VARCHAR);
CREATE TABLE Z_METADATA (Z_VERSION INTEGER PRIMARY KEY, Z_UUID VARCHAR(255), Z_PLIST BLOB);
CREATE INDEX Z_Asset_byDateCreated ON ZASSET (ZDATECREATED, Z_PK);
CREATE INDEX Z_Asset_byUUID ON ZASSET (ZUUID);
CREATE INDEX Z_Asset_byTrashed ON ZASSET (ZTRASHEDSTATE, ZDATECREATED);
CREATE INDEX Z_AdditionalAssetAttributes_byAsset ON ZADDITIONALASSETATTRIBUTES (ZASSET);`,
	change: changePhotos,
}

func changePhotos(x *session) {
	if x.day == 0 {
		x.exec(`INSERT INTO Z_METADATA VALUES (1, ?, ?)`, x.s.uuid(), x.s.bytes(6000))
		for range 12 {
			x.exec(`INSERT INTO ZGENERICALBUM (Z_ENT, Z_OPT, ZKIND, ZCACHEDCOUNT, ZTITLE, ZUUID) VALUES (28, 1, 2, 0, ?, ?)`, x.m.words.name(x.s), x.s.uuid())
		}
	}
	cloud := 0
	if x.day == 0 {
		cloud = max(0, x.shape.assets-len(x.photos))
	}
	count := cloud + len(x.photos)
	for i := range count {
		name, dir, size := fmt.Sprintf("IMG_C%05d.HEIC", i), "DCIM/102APPLE", 900000+x.s.IntN(2000000)
		if i >= cloud {
			f := x.photos[i-cloud]
			name, dir, size = path.Base(f.path), path.Dir(f.path)[len("Media/"):], f.size
		}
		at := x.timeAt(i, count)
		id := x.exec(`INSERT INTO ZASSET (Z_ENT, Z_OPT, ZKIND, ZFAVORITE, ZHIDDEN, ZTRASHEDSTATE, ZWIDTH, ZHEIGHT, ZADDEDDATE, ZDATECREATED, ZMODIFICATIONDATE, ZSORTTOKEN, ZLATITUDE, ZLONGITUDE, ZDIRECTORY, ZFILENAME, ZUNIFORMTYPEIDENTIFIER, ZUUID, ZOVERALLAESTHETICSCORE)
			VALUES (3, 1, 0, ?, 0, 0, 4032, 3024, ?, ?, ?, ?, ?, ?, ?, ?, 'public.heic', ?, ?)`, x.s.IntN(20)/19, cocoa(at), cocoa(at), cocoa(at)+5, cocoa(at),
			float64(48000000+x.s.IntN(900000))/1e6, float64(11000000+x.s.IntN(900000))/1e6, dir, name, x.s.uuid(), float64(x.s.IntN(1000))/1000)
		x.exec(`INSERT INTO ZADDITIONALASSETATTRIBUTES (Z_ENT, Z_OPT, ZASSET, ZORIGINALFILESIZE, ZVIEWCOUNT, ZPENDINGVIEWCOUNT, ZTIMEZONEOFFSET, ZEXIFTIMESTAMPSTRING, ZORIGINALFILENAME, ZORIGINALHASH, ZTIMEZONENAME, ZMASTERFINGERPRINT, ZREVERSELOCATIONDATA)
			VALUES (1, 1, ?, ?, 0, 0, 3600, ?, ?, ?, 'Europe/Berlin', ?, ?)`, id, size, at.Format("2006:01:02 15:04:05"), name, x.s.hex(20), x.s.hex(22), x.s.bytes(60))
		x.exec(`INSERT INTO Z_28ASSETS VALUES (?, ?, ?)`, 1+x.s.IntN(12), id, id*1024)
	}
	if x.day == 0 {
		return
	}
	last := x.number(`SELECT max(Z_PK) FROM ZASSET`)
	for range 5 + count*3 {
		x.exec(`UPDATE ZADDITIONALASSETATTRIBUTES SET ZVIEWCOUNT = ZVIEWCOUNT + 1, Z_OPT = Z_OPT + 1 WHERE ZASSET = ?`, 1+last-x.s.skewed(0, last))
	}
	x.exec(`UPDATE ZASSET SET ZFAVORITE = 1 - ZFAVORITE, Z_OPT = Z_OPT + 1, ZMODIFICATIONDATE = ? WHERE Z_PK = ?`, cocoa(x.to), 1+x.s.IntN(last))
	x.exec(`INSERT INTO ZMOMENT (Z_ENT, Z_OPT, ZCACHEDCOUNT, ZSTARTDATE, ZTITLE, ZUUID) VALUES (40, 1, ?, ?, ?, ?)`, count, cocoa(x.from), x.m.words.name(x.s), x.s.uuid())
}

var notesSchema = schema{
	domain: "AppDomainGroup-group.com.apple.notes", path: "NoteStore.sqlite", class: 3, sizeOff: -4096,
	tables: `
CREATE TABLE ZICCLOUDSYNCINGOBJECT (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZMARKEDFORDELETION INTEGER, ZNOTEDATA INTEGER, ZFOLDER INTEGER, ZCREATIONDATE1 TIMESTAMP, ZMODIFICATIONDATE1 TIMESTAMP, ZTITLE1 VARCHAR, ZSNIPPET VARCHAR, ZIDENTIFIER VARCHAR);
CREATE TABLE ZICNOTEDATA (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZNOTE INTEGER, ZDATA BLOB);
CREATE INDEX ZICCLOUDSYNCINGOBJECT_ZIDENTIFIER_INDEX ON ZICCLOUDSYNCINGOBJECT (ZIDENTIFIER);
CREATE INDEX ZICNOTEDATA_ZNOTE_INDEX ON ZICNOTEDATA (ZNOTE);`,
	change: func(x *session) {
		count := x.amount(x.shape.notes, 1)
		for i := range count {
			at := cocoa(x.timeAt(i, count))
			id := x.exec(`INSERT INTO ZICCLOUDSYNCINGOBJECT (Z_ENT, Z_OPT, ZMARKEDFORDELETION, ZFOLDER, ZCREATIONDATE1, ZMODIFICATIONDATE1, ZTITLE1, ZSNIPPET, ZIDENTIFIER) VALUES (11, 1, 0, 1, ?, ?, ?, ?, ?)`,
				at, at, x.m.words.sentence(x.s, 3), x.m.words.sentence(x.s, 9), x.s.uuid())
			x.exec(`INSERT INTO ZICNOTEDATA (Z_ENT, Z_OPT, ZNOTE, ZDATA) VALUES (19, 1, ?, ?)`, id, noteBody(x.s))
		}
		if x.day == 0 {
			return
		}
		last := x.number(`SELECT max(Z_PK) FROM ZICNOTEDATA`)
		for range 2 {
			note := 1 + x.s.IntN(last)
			x.exec(`UPDATE ZICNOTEDATA SET ZDATA = ?, Z_OPT = Z_OPT + 1 WHERE ZNOTE = ?`, noteBody(x.s), note)
			x.exec(`UPDATE ZICCLOUDSYNCINGOBJECT SET ZMODIFICATIONDATE1 = ?, ZSNIPPET = ? WHERE Z_PK = ?`, cocoa(x.to), x.m.words.sentence(x.s, 9), note)
		}
	},
}

// noteBody returns bytes that resemble the gzip stream of a note.
func noteBody(s stream) []byte {
	return append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x13"), s.bytes(s.skewed(150, 5000))...)
}

var healthSchema = schema{
	domain: "HealthDomain", path: "Health/healthdb_secure.sqlite", class: 2,
	tables: `
CREATE TABLE objects (data_id INTEGER PRIMARY KEY AUTOINCREMENT, uuid BLOB UNIQUE NOT NULL, provenance INTEGER NOT NULL, type INTEGER, creation_date REAL);
CREATE TABLE samples (data_id INTEGER PRIMARY KEY, start_date REAL, end_date REAL, data_type INTEGER);
CREATE TABLE quantity_samples (data_id INTEGER PRIMARY KEY, quantity REAL, original_quantity REAL, original_unit INTEGER);
CREATE TABLE data_provenances (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, origin_product_type TEXT, origin_build TEXT, source_id INTEGER);
CREATE INDEX samples_type_end ON samples (data_type, end_date);
CREATE INDEX samples_type_start ON samples (data_type, start_date);`,
	change: func(x *session) {
		if x.day == 0 {
			x.exec(`INSERT INTO data_provenances (origin_product_type, origin_build, source_id) VALUES ('Watch6,2', '21S651', 1)`)
		}
		count := x.amount(x.shape.health, x.shape.healthPerDay)
		for i := range count {
			at := float64(cocoa(x.timeAt(i, count)))
			id := x.exec(`INSERT INTO objects (uuid, provenance, type, creation_date) VALUES (?, 1, 1, ?)`, x.s.bytes(16), at)
			x.exec(`INSERT INTO samples VALUES (?, ?, ?, ?)`, id, at, at+float64(x.s.IntN(600)), pick(x.s, []int{5, 7, 8, 9, 10, 63}))
			x.exec(`INSERT INTO quantity_samples (data_id, quantity) VALUES (?, ?)`, id, float64(x.s.IntN(200000))/1000)
		}
		if x.day > 0 {
			// Devices remove old samples.
			x.exec(`DELETE FROM samples WHERE data_id % 997 = ? AND data_type = 5`, x.day)
		}
	},
}

var safariSchema = schema{
	domain: "AppDomain-com.apple.mobilesafari", path: "Library/Safari/History.db", class: 3,
	tables: `
CREATE TABLE history_items (id INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL UNIQUE, domain_expansion TEXT, visit_count INTEGER NOT NULL, daily_visit_counts BLOB NOT NULL, weekly_visit_counts BLOB, should_recompute_derived_visit_counts INTEGER NOT NULL);
CREATE TABLE history_visits (id INTEGER PRIMARY KEY AUTOINCREMENT, history_item INTEGER NOT NULL, visit_time REAL NOT NULL, title TEXT, load_successful BOOLEAN NOT NULL DEFAULT 1, origin INTEGER NOT NULL DEFAULT 0, score INTEGER NOT NULL DEFAULT 0);
CREATE TABLE history_tombstones (id INTEGER PRIMARY KEY AUTOINCREMENT, start_time REAL NOT NULL, end_time REAL NOT NULL, url TEXT, generation INTEGER NOT NULL DEFAULT 0);
CREATE INDEX history_items__domain_expansion ON history_items (domain_expansion);
CREATE INDEX history_visits__item_time ON history_visits (history_item, visit_time);`,
	change: func(x *session) {
		count := x.amount(x.shape.visits, x.shape.visitsPerDay)
		for i := range count {
			host := x.m.words.word(x.s)
			url := fmt.Sprintf("https://www.%s.example/%s/%s?id=%d", host, x.m.words.word(x.s), x.m.words.word(x.s), x.s.IntN(1e6))
			x.exec(`INSERT INTO history_items (url, domain_expansion, visit_count, daily_visit_counts, should_recompute_derived_visit_counts) VALUES (?, ?, 1, ?, 0)
				ON CONFLICT (url) DO UPDATE SET visit_count = visit_count + 1`, url, host, []byte{100, 0, 0, 0})
			item := x.number(`SELECT id FROM history_items WHERE url = ?`, url)
			x.exec(`INSERT INTO history_visits (history_item, visit_time, title) VALUES (?, ?, ?)`, item, float64(cocoa(x.timeAt(i, count))), x.m.words.sentence(x.s, 6))
		}
		if x.day == 0 {
			return
		}
		// Old history is removed and, on some days, the history of one site.
		limit := x.from.Add(-300 * 24 * time.Hour)
		x.exec(`DELETE FROM history_visits WHERE visit_time < ?`, float64(cocoa(limit)))
		if x.day%3 == 1 {
			host := x.m.words.word(x.s)
			x.exec(`INSERT INTO history_tombstones (start_time, end_time, url) SELECT 0, ?, url FROM history_items WHERE domain_expansion = ?`, cocoa(x.to), host)
			x.exec(`DELETE FROM history_visits WHERE history_item IN (SELECT id FROM history_items WHERE domain_expansion = ?)`, host)
		}
		x.exec(`DELETE FROM history_items WHERE id NOT IN (SELECT history_item FROM history_visits)`)
	},
}
