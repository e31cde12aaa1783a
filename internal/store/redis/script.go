package redis

import (
	"crypto/sha1"
	_ "embed"
	"encoding/hex"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

//go:embed lua/head.lua
var headLua string

//go:embed lua/bucket.lua
var bucketLua string

//go:embed lua/window.lua
var windowLua string

//go:embed lua/log.lua
var logLua string

//go:embed lua/slots.lua
var slotsLua string

//go:embed lua/take.lua
var takeLua string

//go:embed lua/fast.lua
var fastLua string

//go:embed lua/attempt.lua
var attemptLua string

//go:embed lua/post.lua
var postLua string

//go:embed lua/settle.lua
var settleLua string

//go:embed lua/members.lua
var membersLua string

//go:embed lua/records.lua
var recordsLua string

//go:embed lua/apply.lua
var applyLua string

//go:embed lua/record.lua
var recordLua string

//go:embed lua/page.lua
var pageLua string

//go:embed lua/changes.lua
var changesLua string

//go:embed lua/lead.lua
var leadLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/put.lua
var putLua string

//go:embed lua/tag.lua
var tagLua string

//go:embed lua/mark.lua
var markLua string

//go:embed lua/purges.lua
var purgesLua string

//go:embed lua/purge.lua
var purgeLua string

//go:embed lua/applied.lua
var appliedLua string

//go:embed lua/laggards.lua
var laggardsLua string

// script is a Lua script and the name that Redis knows it by once it has run.
type script struct{ text, sha string }

func newScript(parts ...string) *script {
	s := new(script)
	for _, p := range parts {
		s.text += p
	}
	sum := sha1.Sum([]byte(s.text))
	s.sha = hex.EncodeToString(sum[:])
	return s
}

// scripts are an operation by what kinds of counters it is asked for: Redis runs
// the whole text at each call, so the definitions of one kind are left out where
// only the other is needed.
type scripts struct{ bucket, window, log, slots, all *script }

func newScripts(operation string) scripts {
	return scripts{
		bucket: newScript(headLua, bucketLua, operation),
		window: newScript(headLua, windowLua, operation),
		log:    newScript(headLua, logLua, operation),
		slots:  newScript(headLua, slotsLua, operation),
		all:    newScript(headLua, bucketLua, windowLua, logLua, slotsLua, operation),
	}
}

// of is the script for one kind of counter.
func (s *scripts) of(a meter.Algorithm) *script {
	switch a {
	case meter.TokenBucket, meter.LeakyBucket:
		return s.bucket
	case meter.FixedWindow, meter.SlidingWindow:
		return s.window
	case meter.SlidingLog:
		return s.log
	default:
		return s.slots
	}
}

// The scripts do not change.
var (
	takeScripts   = newScripts(takeLua)
	fastScript    = newScript(fastLua) // of Take
	postScripts   = newScripts(attemptLua + postLua)
	settleScripts = newScripts(attemptLua + settleLua)
	memberScript  = newScript(membersLua)

	applyScript   = newScript(recordsLua, applyLua)
	recordScript  = newScript(recordsLua, recordLua)
	pageScript    = newScript(recordsLua, pageLua)
	changesScript = newScript(recordsLua, changesLua)

	leadScript    = newScript(leadLua)
	releaseScript = newScript(releaseLua)
	putScript     = newScript(putLua)
	tagScript     = newScript(tagLua)
	markScript    = newScript(markLua)

	purgeScript    = newScript(purgesLua, purgeLua)
	appliedScript  = newScript(purgesLua, appliedLua)
	laggardsScript = newScript(purgesLua, laggardsLua)
)
