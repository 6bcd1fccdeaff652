package synthetic

import (
	"fmt"
	"path"
)

var smsSchema = schema{
	domain: "HomeDomain", path: "Library/SMS/sms.db", class: 3,
	tables: `
CREATE TABLE _SqliteDatabaseProperties (key TEXT, value TEXT, UNIQUE(key));
CREATE TABLE handle (ROWID INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, id TEXT NOT NULL, country TEXT, service TEXT NOT NULL, uncanonicalized_id TEXT, UNIQUE (id, service));
CREATE TABLE chat (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, guid TEXT UNIQUE NOT NULL, style INTEGER, state INTEGER, account_id TEXT, properties BLOB, chat_identifier TEXT, service_name TEXT, room_name TEXT, display_name TEXT, last_read_message_timestamp INTEGER DEFAULT 0);
CREATE TABLE message (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, guid TEXT UNIQUE NOT NULL, text TEXT, replace INTEGER DEFAULT 0, service_center TEXT, handle_id INTEGER DEFAULT 0, subject TEXT, country TEXT, attributedBody BLOB, version INTEGER DEFAULT 0, type INTEGER DEFAULT 0, service TEXT, account TEXT, account_guid TEXT, error INTEGER DEFAULT 0, date INTEGER, date_read INTEGER, date_delivered INTEGER, is_delivered INTEGER DEFAULT 0, is_from_me INTEGER DEFAULT 0, is_read INTEGER DEFAULT 0, cache_has_attachments INTEGER DEFAULT 0, associated_message_guid TEXT, associated_message_type INTEGER DEFAULT 0);
CREATE TABLE attachment (ROWID INTEGER PRIMARY KEY AUTOINCREMENT, guid TEXT UNIQUE NOT NULL, created_date INTEGER DEFAULT 0, start_date INTEGER DEFAULT 0, filename TEXT, uti TEXT, mime_type TEXT, transfer_state INTEGER DEFAULT 0, is_outgoing INTEGER DEFAULT 0, transfer_name TEXT, total_bytes INTEGER DEFAULT 0);
CREATE TABLE chat_message_join (chat_id INTEGER, message_id INTEGER, message_date INTEGER DEFAULT 0, PRIMARY KEY (chat_id, message_id));
CREATE TABLE chat_handle_join (chat_id INTEGER, handle_id INTEGER, UNIQUE(chat_id, handle_id));
CREATE TABLE message_attachment_join (message_id INTEGER, attachment_id INTEGER, UNIQUE(message_id, attachment_id));
CREATE TABLE deleted_messages (ROWID INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, guid TEXT NOT NULL);
CREATE INDEX message_idx_date ON message(date);
CREATE INDEX message_idx_handle ON message(handle_id, date);
CREATE INDEX message_idx_is_read ON message(is_read, is_from_me);
CREATE INDEX chat_message_join_idx_message_date_id_chat_id ON chat_message_join(chat_id, message_date, message_id);
CREATE INDEX message_attachment_join_idx_attachment_id ON message_attachment_join(attachment_id);`,
	change: changeMessages,
}

// typedHead and typedTail enclose the text of a message in its attributed form.
const (
	typedHead = "\x04\x0bstreamtyped\x81\xe8\x03\x84\x01@\x84\x84\x84\x12NSAttributedString\x00\x84\x84\x08NSObject\x00\x85\x92\x84\x84\x84\x08NSString\x01\x94\x84\x01+"
	typedTail = "\x86\x84\x02iI\x01\x12\x92\x84\x84\x84\x0cNSDictionary\x00\x94\x84\x01i\x01\x92\x84\x96\x96\x1d__kIMMessagePartAttributeName\x86\x92\x84\x84\x84\x08NSNumber\x00\x84\x84\x07NSValue\x00\x94\x84\x01*\x84\x99\x99\x00\x86\x86\x86"
)

func changeMessages(x *session) {
	if x.day == 0 {
		x.exec(`INSERT INTO _SqliteDatabaseProperties VALUES ('_ClientVersion', '18026')`)
		for i := range 4 + x.shape.contacts/8 {
			phone := fmt.Sprintf("+4915%08d", x.s.IntN(100000000))
			handle := x.exec(`INSERT OR IGNORE INTO handle (id, country, service) VALUES (?, 'de', 'iMessage')`, phone)
			chat := x.exec(`INSERT OR IGNORE INTO chat (guid, style, state, account_id, properties, chat_identifier, service_name) VALUES (?, 45, 3, ?, ?, ?, 'iMessage')`,
				fmt.Sprintf("iMessage;-;%s.%d", phone, i), x.s.uuid(), x.s.bytes(80), phone)
			x.exec(`INSERT OR IGNORE INTO chat_handle_join VALUES (?, ?)`, chat, handle)
		}
	}
	chats := x.number(`SELECT max(ROWID) FROM chat`)
	count := x.amount(x.shape.messages, x.shape.messagesPerDay) + len(x.attachments)
	for i := range count {
		addMessage(x, i, count, x.s.skewed(1, chats))
	}
	if x.day == 0 {
		return
	}
	x.exec(`UPDATE message SET is_read = 1, date_read = date + 90000000000 WHERE is_read = 0 AND is_from_me = 0 AND ROWID % 4 <> 0`)
	if last := x.number(`SELECT max(ROWID) FROM message`); x.day%4 == 3 {
		old := 1 + x.s.IntN(last)
		x.exec(`INSERT INTO deleted_messages (guid) SELECT guid FROM message WHERE ROWID = ?`, old)
		x.exec(`DELETE FROM chat_message_join WHERE message_id = ?`, old)
		x.exec(`DELETE FROM message WHERE ROWID = ?`, old)
	}
}

func addMessage(x *session, i, count, chat int) {
	at := cocoa(x.timeAt(i, count)) * 1e9
	text := x.m.words.sentence(x.s, x.s.skewed(2, 40))
	mine := x.s.IntN(5) < 2
	withFile := i >= count-len(x.attachments)
	body := append([]byte(typedHead), byte(len(text)))
	body = append(append(body, text...), typedTail...)
	id := x.exec(`INSERT INTO message (guid, text, handle_id, attributedBody, version, service, account, account_guid, date, date_delivered, is_delivered, is_from_me, is_read, cache_has_attachments)
		VALUES (?, ?, ?, ?, 10, 'iMessage', 'e:someone@example.com', 'C5E1B3A0-6F0B-4D39-9B0E-2D2C1F3A7E55', ?, ?, 1, ?, ?, ?)`,
		x.s.uuid(), text, chat, body, at, at+x.s.Int64N(3e9), mine, mine || x.day == 0, withFile)
	x.exec(`INSERT INTO chat_message_join VALUES (?, ?, ?)`, chat, id, at)
	if withFile {
		f := x.attachments[i-(count-len(x.attachments))]
		file := x.exec(`INSERT INTO attachment (guid, created_date, filename, uti, mime_type, transfer_state, is_outgoing, transfer_name, total_bytes) VALUES (?, ?, ?, 'public.jpeg', 'image/jpeg', 5, ?, ?, ?)`,
			x.s.uuid(), at/1e9, "~/"+f.path, mine, path.Base(f.path), f.size)
		x.exec(`INSERT INTO message_attachment_join VALUES (?, ?)`, id, file)
	}
}

var chatSchema = schema{
	domain: "AppDomainGroup-group.net.whatsapp.WhatsApp.shared", path: "ChatStorage.sqlite", class: 3,
	tables: `
CREATE TABLE ZWACHATSESSION (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZMESSAGECOUNTER INTEGER, ZUNREADCOUNT INTEGER, ZLASTMESSAGEDATE TIMESTAMP, ZCONTACTJID VARCHAR, ZPARTNERNAME VARCHAR, ZLASTMESSAGETEXT VARCHAR);
CREATE TABLE ZWAMESSAGE (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZISFROMME INTEGER, ZMESSAGESTATUS INTEGER, ZMESSAGETYPE INTEGER, ZSORT INTEGER, ZCHATSESSION INTEGER, ZMEDIAITEM INTEGER, ZMESSAGEDATE TIMESTAMP, ZSENTDATE TIMESTAMP, ZFROMJID VARCHAR, ZTOJID VARCHAR, ZSTANZAID VARCHAR, ZTEXT VARCHAR);
CREATE TABLE ZWAMEDIAITEM (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZFILESIZE INTEGER, ZMESSAGE INTEGER, ZMEDIALOCALPATH VARCHAR, ZMEDIAKEY BLOB, ZMETADATA BLOB);
CREATE TABLE ZWAMESSAGEINFO (Z_PK INTEGER PRIMARY KEY, Z_ENT INTEGER, Z_OPT INTEGER, ZMESSAGE INTEGER, ZRECEIPTINFO BLOB);
CREATE TABLE Z_PRIMARYKEY (Z_ENT INTEGER PRIMARY KEY, Z_NAME VARCHAR, Z_SUPER INTEGER, Z_MAX INTEGER);
CREATE TABLE Z_METADATA (Z_VERSION INTEGER PRIMARY KEY, Z_UUID VARCHAR(255), Z_PLIST BLOB);
CREATE INDEX ZWAMESSAGE_ZCHATSESSION_INDEX ON ZWAMESSAGE (ZCHATSESSION, ZSORT);
CREATE INDEX ZWAMESSAGE_ZSTANZAID_INDEX ON ZWAMESSAGE (ZSTANZAID);
CREATE INDEX ZWAMESSAGE_ZMESSAGEDATE_INDEX ON ZWAMESSAGE (ZMESSAGEDATE);
CREATE INDEX ZWAMESSAGEINFO_ZMESSAGE_INDEX ON ZWAMESSAGEINFO (ZMESSAGE);`,
	change: changeChats,
}

func changeChats(x *session) {
	if x.day == 0 {
		x.exec(`INSERT INTO Z_METADATA VALUES (1, ?, ?)`, x.s.uuid(), x.s.bytes(900))
		for i, name := range []string{"WAChatSession", "WAMessage", "WAMediaItem", "WAMessageInfo"} {
			x.exec(`INSERT INTO Z_PRIMARYKEY VALUES (?, ?, 0, 0)`, i+1, name)
		}
		for range 3 + x.shape.contacts/10 {
			x.exec(`INSERT INTO ZWACHATSESSION (Z_ENT, Z_OPT, ZMESSAGECOUNTER, ZUNREADCOUNT, ZCONTACTJID, ZPARTNERNAME) VALUES (1, 1, 0, 0, ?, ?)`,
				fmt.Sprintf("49%010d@s.whatsapp.net", x.s.IntN(1e9)), x.m.words.name(x.s)+" "+x.m.words.name(x.s))
		}
	}
	sessions := x.number(`SELECT max(Z_PK) FROM ZWACHATSESSION`)
	count := x.amount(x.shape.chats, x.shape.chatsPerDay)
	for i := range count {
		chat, at := x.s.skewed(1, sessions), cocoa(x.timeAt(i, count))
		text := x.m.words.sentence(x.s, x.s.skewed(1, 30))
		id := x.exec(`INSERT INTO ZWAMESSAGE (Z_ENT, Z_OPT, ZISFROMME, ZMESSAGESTATUS, ZMESSAGETYPE, ZSORT, ZCHATSESSION, ZMESSAGEDATE, ZSENTDATE, ZFROMJID, ZSTANZAID, ZTEXT)
			VALUES (2, 1, ?, 8, 0, ?, ?, ?, ?, 'someone@s.whatsapp.net', ?, ?)`, x.s.IntN(2), i+x.day*100000, chat, at, at, x.s.hex(10), text)
		x.exec(`INSERT INTO ZWAMESSAGEINFO (Z_ENT, Z_OPT, ZMESSAGE, ZRECEIPTINFO) VALUES (4, 1, ?, ?)`, id, x.s.bytes(40))
		if x.s.IntN(12) == 0 {
			x.exec(`INSERT INTO ZWAMEDIAITEM (Z_ENT, Z_OPT, ZFILESIZE, ZMESSAGE, ZMEDIALOCALPATH, ZMEDIAKEY, ZMETADATA) VALUES (3, 1, ?, ?, ?, ?, ?)`,
				x.s.IntN(400000), id, "Media/"+x.s.hex(8)+".jpg", x.s.bytes(72), x.s.bytes(90))
		}
		if x.day > 0 {
			x.exec(`UPDATE ZWACHATSESSION SET Z_OPT = Z_OPT + 1, ZMESSAGECOUNTER = ZMESSAGECOUNTER + 1, ZLASTMESSAGEDATE = ?, ZLASTMESSAGETEXT = ? WHERE Z_PK = ?`, at, text, chat)
		}
	}
	x.exec(`UPDATE Z_PRIMARYKEY SET Z_MAX = (SELECT max(Z_PK) FROM ZWAMESSAGE) WHERE Z_ENT = 2`)
}
