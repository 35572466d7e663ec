package redisstore

import (
	"encoding/binary"
	"time"

	"postern/session"
)

// The value of a session's key. The scripts know these places too.
//
//	byte  0      format, 1
//	byte  1      length of the reason; 0: it lives
//	bytes 2–9    version, big endian
//	bytes 10–17  seen, Unix seconds, big endian
//	             the reason
//	             the sealed session
const (
	formatRecord  = 1
	headerLength  = 18
	versionOffset = 2
	seenOffset    = 10
	maxReason     = 255
)

func encode(rec session.Record) []byte {
	value := make([]byte, 0, headerLength+len(rec.Sealed))
	value = append(value, formatRecord, 0)
	value = binary.BigEndian.AppendUint64(value, uint64(rec.Version))
	value = binary.BigEndian.AppendUint64(value, uint64(unixSeconds(rec.Seen)))
	return append(value, rec.Sealed...)
}

// decode reads a value. One that is none of ours, because somebody wrote to Redis, is a record whose sealed value opens under no
// key: to its reader it is tampered with, which is so, and it does not look like a store that is down.
func decode(value []byte) session.Record {
	if len(value) < headerLength || value[0] != formatRecord || len(value) < headerLength+int(value[1]) {
		return session.Record{}
	}
	rest := value[headerLength:]
	reason := int(value[1])
	rec := session.Record{
		Version: int64(binary.BigEndian.Uint64(value[versionOffset:])),
		Ended:   session.Reason(rest[:reason]),
	}
	if sec := int64(binary.BigEndian.Uint64(value[seenOffset:])); sec > 0 {
		rec.Seen = time.Unix(sec, 0)
	}
	if sealed := rest[reason:]; len(sealed) > 0 {
		rec.Sealed = sealed
	}
	return rec
}

// number is a number as the scripts compare it and the value holds it.
func number(n int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(n))
}

// unixSeconds is what a record keeps of a time; 0 is the zero time.
func unixSeconds(t time.Time) int64 {
	return max(t.Unix(), 0)
}
