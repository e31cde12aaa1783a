package semantics

import "time"

// ParseDate reads an HTTP-date in any of its three forms (RFC 9110 §5.6.7), to
// Unix seconds:
//
//	Sun, 06 Nov 1994 08:49:37 GMT
//	Sunday, 06-Nov-94 08:49:37 GMT
//	Sun Nov  6 08:49:37 1994
//
// As RFC 9111 §4.2 has it for caches, the case of letters does not matter, and
// a zone other than GMT is invalid. Everything else is strict, but that the
// weekday need not be the right one. A leap second is the one before it.
//
// A year of two digits is taken to be at most 50 years ahead of 2026; who knows
// the time uses parseDate.
func ParseDate(b []byte) (unix int64, ok bool) { return parseDate(b, year2026) }

const (
	year2026     = 1767225600
	meanYear     = 31556952 // seconds, Gregorian
	dayInSeconds = 24 * 60 * 60
)

func parseDate(b []byte, now int64) (unix int64, ok bool) {
	var d date
	switch {
	case len(b) == len("Sun, 06 Nov 1994 08:49:37 GMT") && b[3] == ',':
		ok = d.weekday(b[:3], shortDays[:]) && b[4] == ' ' && d.dayOf(b[5:7]) && b[7] == ' ' &&
			d.monthOf(b[8:11]) && b[11] == ' ' && d.yearOf(b[12:16]) && b[16] == ' ' && d.clock(b[17:25]) && zone(b[25:])
	case len(b) == len("Sun Nov  6 08:49:37 1994") && b[3] == ' ':
		ok = d.weekday(b[:3], shortDays[:]) && d.monthOf(b[4:7]) && b[7] == ' ' && d.dayOrSpace(b[8:10]) &&
			b[10] == ' ' && d.clock(b[11:19]) && b[19] == ' ' && d.yearOf(b[20:24])
	case len(b) > len(", 06-Nov-94 08:49:37 GMT"):
		at := len(b) - len(", 06-Nov-94 08:49:37 GMT")
		day, r := b[:at], b[at:]
		ok = d.weekday(day, longDays[:]) && r[0] == ',' && r[1] == ' ' && d.dayOf(r[2:4]) && r[4] == '-' &&
			d.monthOf(r[5:8]) && r[8] == '-' && d.shortYearOf(r[9:11], now) && r[11] == ' ' && d.clock(r[12:20]) && zone(r[20:])
	}
	if !ok || d.day > d.month.days(d.year) {
		return 0, false
	}
	if d.short && d.unix() > time.Unix(now, 0).UTC().AddDate(50, 0, 0).Unix() {
		d.year -= 100
	}
	return d.unix(), d.day <= d.month.days(d.year)
}

type date struct {
	year, day, seconds int64
	month              month
	short              bool // the year had two digits
}

type month uint8 // 1 to 12

func (m month) days(year int64) int64 {
	if m == 2 {
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 30 + int64(m+m/8)&1
}

// unix counts the days since 1970 in years that begin in March (Hinnant,
// "chrono-Compatible Low-Level Date Algorithms", days_from_civil).
func (d *date) unix() int64 {
	y, m := d.year, int64(d.month)
	if m <= 2 {
		y--
		m += 12
	}
	y += 400 // year 0 in January is one below
	days := 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d.day - 1
	return (days-719468-146097)*dayInSeconds + d.seconds
}

func (d *date) weekday(b []byte, names []string) bool {
	for _, n := range names {
		if is(b, n) {
			return true
		}
	}
	return false
}

func (d *date) monthOf(b []byte) bool {
	for i, n := range months {
		if is(b, n) {
			d.month = month(i + 1)
			return true
		}
	}
	return false
}

func (d *date) dayOf(b []byte) bool {
	var ok bool
	d.day, ok = digits(b)
	return ok && d.day >= 1
}

func (d *date) dayOrSpace(b []byte) bool {
	if b[0] == ' ' {
		b = b[1:]
	}
	return d.dayOf(b)
}

func (d *date) yearOf(b []byte) bool {
	var ok bool
	d.year, ok = digits(b)
	return ok
}

func (d *date) shortYearOf(b []byte, now int64) bool {
	n, ok := digits(b)
	this := 1970 + floorDiv(now, meanYear)
	d.year, d.short = this-this%100+n, true
	if d.year <= this-50 {
		d.year += 100 // the century after the next turn, unless that is too far
	}
	return ok
}

func (d *date) clock(b []byte) bool {
	h, ok1 := digits(b[:2])
	m, ok2 := digits(b[3:5])
	s, ok3 := digits(b[6:8])
	d.seconds = h*3600 + m*60 + min(s, 59)
	return ok1 && ok2 && ok3 && b[2] == ':' && b[5] == ':' && h < 24 && m < 60 && s <= 60
}

func digits(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func zone(b []byte) bool { return is(b, " gmt") }

// floorDiv is a/b rounded down, for b > 0.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

var (
	shortDays = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	longDays  = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}
	months    = [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
)

// AppendDate appends a time in the preferred form.
func AppendDate(b []byte, unix int64) []byte {
	return time.Unix(unix, 0).UTC().AppendFormat(b, "Mon, 02 Jan 2006 15:04:05 GMT")
}
