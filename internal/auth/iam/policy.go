package iam

import (
	"slices"
)

// Policy is a document that was understood. It does not change; any number of
// goroutines may use it.
type Policy struct {
	statements []statement
	headers    bool
}

// statement is one of a policy's. All of its elements have to match.
type statement struct {
	name       string // `statement 2 "admins" (line 9)`
	said       string // what Evaluate tells when it decides
	deny       bool
	principals principals
	actions    []pattern
	resources  []resource
	conditions []condition
	// The lists name what is not meant: NotPrincipal, NotAction, NotResource.
	notPrincipal, notAction, notResource bool
}

// principals are who a statement is about.
type principals struct {
	everybody  bool // nobody known too
	ids, roles []string
}

// has reports whether c is one of them. Who is to be allowed something must be a
// declared client, or be named together with what vouches for it, AUTHENTICATOR:id:
// another issuer can give its callers any id. Who is denied is so by the id alone.
func (p *principals) has(c *Caller, deny bool) bool {
	if p.everybody {
		return true
	}
	if c.ID != "" && (deny || c.Authenticator == "") && slices.Contains(p.ids, c.ID) {
		return true
	}
	if c.Authenticator != "" && slices.ContainsFunc(p.ids, func(id string) bool { return names(id, c) }) {
		return true
	}
	for _, role := range c.Roles {
		if slices.Contains(p.roles, role) {
			return true
		}
	}
	return false
}

// names reports whether id is AUTHENTICATOR:id of c.
func names(id string, c *Caller) bool {
	n := len(c.Authenticator)
	return len(id) == n+1+len(c.ID) && id[:n] == c.Authenticator && id[n] == ':' && id[n+1:] == c.ID
}

// NeedsHeaders reports whether Evaluate looks at UserAgent or Referer of a request.
func (p *Policy) NeedsHeaders() bool { return p.headers }

const nobody = "no statement allows it"

// Evaluate decides about q. The text names the statement that decided, or says that
// none did. It is made beforehand: nothing is allocated unless a condition needs it.
func (p *Policy) Evaluate(q *Request) (Decision, string) {
	decision, why := NotAllowed, nobody
	t := targetOf(q.Resource)
	for i := range p.statements {
		s := &p.statements[i]
		if decision == Allowed && !s.deny || s.differs(q, &t) != everything {
			continue
		}
		if s.deny {
			return Denied, s.said
		}
		decision, why = Allowed, s.said
	}
	return decision, why
}

// element is how far a request matches a statement: the first element that it does
// not, or everything.
type element int

const (
	inPrincipal element = iota
	inAction
	inResource
	inCondition         // plus the number of the condition
	everything  element = 1 << 30
)

func (s *statement) differs(q *Request, t *target) element {
	if s.principals.has(&q.Caller, s.deny && !s.notPrincipal) == s.notPrincipal {
		return inPrincipal
	}
	found := false
	for i := range s.actions {
		if found = match(&s.actions[i], q, q.Action); found {
			break
		}
	}
	if found == s.notAction {
		return inAction
	}
	found = false
	for i := range s.resources {
		if found = s.resources[i].matches(q, t); found {
			break
		}
	}
	if found == s.notResource {
		return inResource
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(q) {
			return inCondition + element(i)
		}
	}
	return everything
}

// Explain says of a request what Evaluate says, and, when no statement allows it,
// which one comes closest and what of it does not match. It is for people, and slow.
func (p *Policy) Explain(q *Request) string {
	decision, why := p.Evaluate(q)
	if decision != NotAllowed {
		return why
	}
	t := targetOf(q.Resource)
	var closest *statement
	far := element(-1)
	for i := range p.statements {
		if s := &p.statements[i]; !s.deny {
			if e := s.differs(q, &t); e > far {
				closest, far = s, e
			}
		}
	}
	if closest == nil {
		return why
	}
	return why + "; " + closest.name + " would, but for " + closest.element(far)
}

// element is the name of an element as the document has it.
func (s *statement) element(e element) string {
	name := ""
	switch e {
	case inPrincipal:
		name = "Principal"
		if s.notPrincipal {
			name = "NotPrincipal"
		}
	case inAction:
		name = "Action"
		if s.notAction {
			name = "NotAction"
		}
	case inResource:
		name = "Resource"
		if s.notResource {
			name = "NotResource"
		}
	default:
		return "its condition " + s.conditions[e-inCondition].name
	}
	return "its " + name
}
