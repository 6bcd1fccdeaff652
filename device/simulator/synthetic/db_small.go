package synthetic

import "fmt"

// schemas returns every app database of a device.
func schemas() []*schema {
	return []*schema{&smsSchema, &photosSchema, &chatSchema, &callsSchema, &notesSchema, &safariSchema, &healthSchema, &contactsSchema, &usageSchema}
}

var callsSchema = schema{
	domain: "HomeDomain", path: "Library/CallHistoryDB/CallHistory.storedata", class: 3,
	tables: `
CREATE TABLE ZCALLRECORD (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZANSWERED INTEGER, ZCALLTYPE INTEGER, ZORIGINATED INTEGER, ZREAD INTEGER, ZDATE TIMESTAMP, ZDURATION FLOAT, ZADDRESS VARCHAR, ZISO_COUNTRY_CODE VARCHAR, ZSERVICE_PROVIDER VARCHAR, ZUNIQUE_ID VARCHAR);
CREATE TABLE Z_METADATA (Z_VERSION INTEGER PRIMARY KEY, Z_UUID VARCHAR(255), Z_PLIST BLOB);
CREATE INDEX ZCALLRECORD_DATE ON ZCALLRECORD (ZDATE);`,
	change: func(x *session) {
		if x.day == 0 {
			x.exec(`INSERT INTO Z_METADATA VALUES (1, ?, ?)`, x.s.uuid(), x.s.bytes(700))
		}
		count := x.amount(x.shape.calls, 5)
		for i := range count {
			x.exec(`INSERT INTO ZCALLRECORD (Z_ENT, Z_OPT, ZANSWERED, ZCALLTYPE, ZORIGINATED, ZREAD, ZDATE, ZDURATION, ZADDRESS, ZISO_COUNTRY_CODE, ZSERVICE_PROVIDER, ZUNIQUE_ID) VALUES (2, 1, ?, 1, ?, 1, ?, ?, ?, 'de', 'com.apple.Telephony', ?)`,
				x.s.IntN(2), x.s.IntN(2), float64(cocoa(x.timeAt(i, count))), float64(x.s.skewed(0, 3600)), fmt.Sprintf("+4915%08d", x.s.skewed(0, 100000000)), x.s.uuid())
		}
		if x.day > 0 {
			x.exec(`DELETE FROM ZCALLRECORD WHERE Z_PK <= (SELECT max(Z_PK) FROM ZCALLRECORD) - 1000`)
		}
	},
}

var contactsSchema = schema{
	domain: "HomeDomain", path: "Library/AddressBook/AddressBook.sqlitedb", class: 3,
	tables: `
CREATE TABLE ABPerson (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, First TEXT, Last TEXT, Organization TEXT, Note TEXT, CreationDate INTEGER, ModificationDate INTEGER, guid TEXT);
CREATE TABLE ABMultiValue (UID INTEGER PRIMARY KEY, record_id INTEGER, property INTEGER, identifier INTEGER, label INTEGER, value TEXT);
CREATE INDEX ABMultiValueRecordIDIndex ON ABMultiValue(record_id);
CREATE INDEX ABFirstLast ON ABPerson(First, Last);`,
	change: func(x *session) {
		count := x.amount(x.shape.contacts, 0)
		for i := range count {
			at := cocoa(x.timeAt(i, count))
			id := x.exec(`INSERT INTO ABPerson (First, Last, Organization, Note, CreationDate, ModificationDate, guid) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				x.m.words.name(x.s), x.m.words.name(x.s), x.m.words.name(x.s), x.m.words.sentence(x.s, x.s.skewed(1, 20)), at, at, x.s.uuid())
			x.exec(`INSERT INTO ABMultiValue (record_id, property, identifier, label, value) VALUES (?, 3, 0, 1, ?)`, id, fmt.Sprintf("+4915%08d", x.s.IntN(100000000)))
		}
		if x.day > 0 {
			last := x.number(`SELECT max(ROWID) FROM ABPerson`)
			x.exec(`UPDATE ABPerson SET Note = ?, ModificationDate = ? WHERE ROWID = ?`, x.m.words.sentence(x.s, 6), cocoa(x.to), 1+x.s.IntN(last))
		}
	},
}

var usageSchema = schema{
	domain: "WirelessDomain", path: "Library/Databases/DataUsage.sqlite", class: 4,
	tables: `
CREATE TABLE ZPROCESS (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZFIRSTTIMESTAMP TIMESTAMP, ZTIMESTAMP TIMESTAMP, ZBUNDLENAME VARCHAR, ZPROCNAME VARCHAR);
CREATE TABLE ZLIVEUSAGE (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZHASPROCESS INTEGER, ZWIFIIN FLOAT, ZWIFIOUT FLOAT, ZWWANIN FLOAT, ZWWANOUT FLOAT, ZTIMESTAMP TIMESTAMP);
CREATE INDEX ZLIVEUSAGE_PROCESS ON ZLIVEUSAGE (ZHASPROCESS);`,
	change: func(x *session) {
		at := cocoa(x.to)
		if x.day == 0 {
			for range x.shape.apps * 2 {
				name := x.m.words.rareWord(x.s)
				id := x.exec(`INSERT INTO ZPROCESS (Z_ENT, Z_OPT, ZFIRSTTIMESTAMP, ZTIMESTAMP, ZBUNDLENAME, ZPROCNAME) VALUES (3, 1, ?, ?, ?, ?)`, at-x.s.Int64N(1e7), at, "com."+name+".app", name)
				x.exec(`INSERT INTO ZLIVEUSAGE (Z_ENT, Z_OPT, ZHASPROCESS, ZWIFIIN, ZWIFIOUT, ZWWANIN, ZWWANOUT, ZTIMESTAMP) VALUES (2, 1, ?, ?, ?, ?, ?, ?)`,
					id, float64(x.s.IntN(1e8)), float64(x.s.IntN(1e7)), float64(x.s.IntN(1e7)), float64(x.s.IntN(1e6)), at)
			}
			return
		}
		x.exec(`UPDATE ZLIVEUSAGE SET Z_OPT = Z_OPT + 1, ZWIFIIN = ZWIFIIN + ?, ZWWANIN = ZWWANIN + ?, ZTIMESTAMP = ? WHERE Z_PK % 3 = ?`, x.s.IntN(1e6), x.s.IntN(1e5), at, x.day%3)
	},
}
