#!/usr/bin/env python3
"""Opens a MobileSync backup folder and judges it, encrypted or not.

Usage: decrypt.py FOLDER < PASSWORD

Prints a JSON object: for every file of Manifest.db, by "domain-relativePath",
the SHA-256 of its plain content. Anything that is not as the published
descriptions of the format say ends the program with a message and status 1.

It was written from those descriptions alone and shares nothing with the
program that it judges, so that one error is not made twice.
"""

import hashlib
import json
import os
import plistlib
import sqlite3
import struct
import sys
import tempfile

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

WRAPPED_BY_DEVICE = 1
WRAPPED_BY_PASSWORD = 2


class Fault(Exception):
    pass


def parse_keybag(raw):
    """Splits tag-length-value records; the second UUID begins the classes."""
    header, classes, at = {}, [], 0
    current = header
    while at < len(raw):
        tag = raw[at : at + 4].decode("ascii")
        (length,) = struct.unpack(">I", raw[at + 4 : at + 8])
        value = raw[at + 8 : at + 8 + length]
        if len(value) != length:
            raise Fault("keybag: %s is cut off" % tag)
        at += 8 + length
        if tag == "UUID" and "UUID" in header:
            current = {}
            classes.append(current)
        if tag in current:
            raise Fault("keybag: %s twice" % tag)
        current[tag] = value
    return header, classes


def number(value):
    return struct.unpack(">I", value)[0]


def class_keys(raw, password):
    header, classes = parse_keybag(raw)
    if number(header["TYPE"]) & 0x3FFFFFFF != 1:
        raise Fault("keybag: not that of a backup")
    secret = password
    if "DPSL" in header:
        secret = hashlib.pbkdf2_hmac("sha256", secret, header["DPSL"], number(header["DPIC"]), 32)
    secret = hashlib.pbkdf2_hmac("sha1", secret, header["SALT"], number(header["ITER"]), 32)
    keys = {}
    for c in classes:
        wrap = number(c["WRAP"])
        if not wrap & WRAPPED_BY_PASSWORD:
            continue
        try:
            key = aes_key_unwrap(secret, c["WPKY"])
        except InvalidUnwrap:
            raise Fault("keybag: class %d does not open: wrong password?" % number(c["CLAS"]))
        if not wrap & WRAPPED_BY_DEVICE:
            keys[number(c["CLAS"])] = key
    return keys


def file_key(keys, wrapped):
    if len(wrapped) != 44:
        raise Fault("a wrapped key of %d bytes" % len(wrapped))
    (number_of_class,) = struct.unpack("<I", wrapped[:4])
    if number_of_class not in keys:
        raise Fault("no key of class %d" % number_of_class)
    return aes_key_unwrap(keys[number_of_class], wrapped[4:]), number_of_class


def decrypt(key, sealed):
    if not sealed or len(sealed) % 16:
        raise Fault("%d sealed bytes" % len(sealed))
    aes = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).decryptor()
    padded = aes.update(sealed) + aes.finalize()
    count = padded[-1]
    if not 1 <= count <= 16 or padded[-count:] != bytes([count]) * count:
        raise Fault("bad padding")
    return padded[:-count]


def unarchive(blob):
    """Reads the dictionary of an MBFile out of its NSKeyedArchiver plist."""
    archive = plistlib.loads(blob)
    objects = archive["$objects"]

    def value(v):
        return objects[v.data] if isinstance(v, plistlib.UID) else v

    root = value(archive["$top"]["root"])
    if value(root["$class"])["$classname"] != "MBFile":
        raise Fault("not an MBFile")
    out = {k: value(v) for k, v in root.items()}
    key = out.get("EncryptionKey")
    if isinstance(key, dict):
        out["EncryptionKey"] = value(key["NS.data"])
    return out


def read(*parts):
    with open(os.path.join(*parts), "rb") as f:
        return f.read()


def rows(database):
    with tempfile.TemporaryDirectory() as scratch:
        name = os.path.join(scratch, "Manifest.db")
        with open(name, "wb") as f:
            f.write(database)
        db = sqlite3.connect(name)
        try:
            verdict = db.execute("PRAGMA integrity_check").fetchall()
            if verdict != [("ok",)]:
                raise Fault("Manifest.db: %r" % verdict)
            return db.execute("SELECT fileID, domain, relativePath, flags, file FROM Files").fetchall()
        finally:
            db.close()


def judge_file(folder, row, keys):
    file_id, domain, path, _, blob = row
    if hashlib.sha1(("%s-%s" % (domain, path)).encode("utf-8")).hexdigest() != file_id:
        raise Fault("its fileID is not the hash of its domain and path")
    record = unarchive(blob)
    if record["RelativePath"] != path:
        raise Fault("MBFile calls it %r" % record["RelativePath"])
    kind = {1: 0o100000, 2: 0o040000, 4: 0o120000}[row[3]]
    if record["Mode"] & 0o170000 != kind:
        raise Fault("flags %d, mode %o" % (row[3], record["Mode"]))
    if row[3] != 1:
        return None
    stored = read(folder, file_id[:2], file_id)
    digest = record.get("Digest")
    if digest is not None and hashlib.sha1(stored).digest() != digest:
        raise Fault("its Digest is not that of the stored bytes")
    if keys is None:
        if "EncryptionKey" in record:
            raise Fault("a key in a plain backup")
        return hashlib.sha256(stored).hexdigest()
    key, number_of_class = file_key(keys, record["EncryptionKey"])
    if number_of_class != record["ProtectionClass"]:
        raise Fault("class %d, but a key of class %d" % (record["ProtectionClass"], number_of_class))
    # If the content is only in a cloud, it was not sent. An empty file may be
    # stored as 0 bytes.
    plain = decrypt(key, stored) if stored else b""
    return hashlib.sha256(plain).hexdigest()


def judge(folder, password):
    manifest = plistlib.loads(read(folder, "Manifest.plist"))
    status = plistlib.loads(read(folder, "Status.plist"))
    if status["SnapshotState"] != "finished":
        raise Fault("Status.plist: %s" % status["SnapshotState"])
    plistlib.loads(read(folder, "Info.plist"))
    database, keys = read(folder, "Manifest.db"), None
    if manifest["IsEncrypted"]:
        keys = class_keys(manifest["BackupKeyBag"], password)
        database = decrypt(file_key(keys, manifest["ManifestKey"])[0], database)
    else:
        class_keys(manifest["BackupKeyBag"], b"")
    out, listed = {}, set()
    for row in rows(database):
        name = "%s-%s" % (row[1], row[2])
        try:
            sum_of_plain = judge_file(folder, row, keys)
        except (Fault, KeyError, InvalidUnwrap) as e:
            raise Fault("%s: %r" % (name, e))
        if sum_of_plain is not None:
            out[name] = sum_of_plain
            listed.add(row[0])
    for number_of_folder in range(256):
        prefix = "%02x" % number_of_folder
        for name in os.listdir(os.path.join(folder, prefix)):
            if name not in listed:
                raise Fault("%s/%s is in no row" % (prefix, name))
    return out


def main():
    password = sys.stdin.buffer.readline().rstrip(b"\n")
    try:
        result = judge(sys.argv[1], password)
    except Fault as e:
        sys.exit("%s: %s" % (sys.argv[1], e))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
