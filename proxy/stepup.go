package proxy

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"postern/proxy/access"
	"postern/proxy/idp"
)

// Stepping up: whoever is signed in, but not as strongly or as recently as a route or the application demands, goes to the provider again
// with the demand (acr_values, max_age), and comes back to a new session if the provider's answer meets it. The demand travels in the attempt's
// cookie; what came back is verified by the provider module (idp.Finish), since providers may pass over it.
//
// It cannot loop: an answer that does not meet the demand ends in a page, after at most one more try, and sign-ins in a row are counted as all are.

// codeStepUp is what programs are told (RFC 9470 section 3).
const codeStepUp = "insufficient_user_authentication"

// stepUpChallenge continues a Bearer challenge with what is demanded; "" without a demand.
func stepUpChallenge(d *access.Demand) string {
	if d == nil {
		return ""
	}
	s := `, error="` + codeStepUp + `", error_description="A stronger or more recent sign-in is required"`
	if len(d.ACR) > 0 {
		s += `, acr_values="` + strings.Join(d.ACR, " ") + `"`
	}
	if d.MaxAge > 0 {
		s += `, max_age="` + strconv.Itoa(int(d.MaxAge.Seconds())) + `"`
	}
	return s
}

// demandFor is what a sign-in that leads to the page at a checked address must be: what the verdict says, else what the page's route demands. So a
// first sign-in is strong enough at once.
func (p *Proxy) demandFor(x *exchange, address string) *access.Demand {
	if x.verdict.Demand != nil {
		return x.verdict.Demand
	}
	if rt := p.routeOf(x, address); rt != nil {
		return rt.rule.Demand()
	}
	return nil
}

// stepUpLink is a demand on its way through a link to start: the page that it leads back to may not be the one that demands it. It is sealed, since
// how strong a sign-in must be is not for whoever makes a link to say.
type stepUpLink struct {
	Provider string        `cbor:"1,keyasint"`
	Demand   access.Demand `cbor:"2,keyasint"`
}

func stepUpPurpose(x *exchange) string { return "step up\x00" + x.origin.String() }

// stepUpParam is the parameter by which a link to start asks for the step-up of the verdict; "" without one.
func (p *Proxy) stepUpParam(x *exchange) string {
	v := x.verdict
	if v.Demand == nil || v.Provider == nil {
		return ""
	}
	payload, err := cbor.Marshal(stepUpLink{v.Provider.name, *v.Demand})
	if err != nil {
		return ""
	}
	sealed, err := p.attempts.ring.Seal(stepUpPurpose(x), payload)
	if err != nil {
		return ""
	}
	return "step_up=" + sealed + "&"
}

// openStepUp makes the demand of a link to start that of the verdict. From one that is not ours, or too old, the sign-in is an ordinary one.
func (p *Proxy) openStepUp(x *exchange, sealed string) {
	payload, _, err := p.attempts.ring.Open(stepUpPurpose(x), sealed, stateLifetime)
	var link stepUpLink
	if err != nil || cbor.Unmarshal(payload, &link) != nil {
		return
	}
	if pr := p.provider(link.Provider); pr != nil && pr.idp.TellsHow() {
		x.verdict.Provider, x.verdict.Demand = pr, &link.Demand
	}
}

// insufficient is an error that says that the provider signed the person in, but not as demanded; nil for every other.
func insufficient(err error) *idp.InsufficientError {
	weak, _ := errors.AsType[*idp.InsufficientError](err)
	return weak
}

// signInTooWeak answers a sign-in that does not meet its demand: no session was made, and none has ended. One that was only too old is tried once more,
// with the order to ask the person.
func (p *Proxy) signInTooWeak(x *exchange, pr *provider, at attempt, weak *idp.InsufficientError) {
	x.verdict.Provider, x.verdict.Demand = pr, &at.Demand
	if weak.Stale && !at.Again {
		x.reason("sign_in_too_old", weak)
		p.begin(x, pr, signIn{rd: at.ReturnTo, count: at.Count, demand: &at.Demand, again: true})
		return
	}
	x.reason("sign_in_insufficient", weak)
	p.notice(x, http.StatusForbidden, noticeNotEnough, p.startAnew(x, at.ReturnTo))
}

// The bounds of what an application may demand.
const (
	maxDemandACR  = 256 // bytes of acr_values
	maxDemandAge  = 365 * 24 * time.Hour
	minDemandAge  = time.Second // of max_age=0: a sign-in from now on
	reasonDemands = "application_demands_step_up"
)

// demanded tells whether the application's 401, whose header is h, sends a page navigation to step up (RFC 9470 section 4): then the verdict is revised, and
// the application's answer is dropped. Everybody else gets that as it is. Runs where the upstream answers; a nil exchange has nobody to send.
func (x *exchange) demanded(h http.Header) bool {
	if x == nil || x.verdict.Provider == nil || !x.verdict.Provider.idp.TellsHow() || !x.goesToSignIn() {
		return false
	}
	d := demandOf(h)
	if d == nil {
		return false
	}
	v := verdict{Kind: verdictSignIn, Reason: reasonDemands, Session: x.verdict.Session, Provider: x.verdict.Provider, Demand: d}
	x.revised.CompareAndSwap(nil, &v)
	return true
}

// demandOf reads what a challenge demands; nil where it demands nothing, or what cannot be asked for.
func demandOf(h http.Header) *access.Demand {
	params := bearerChallenge(h["Www-Authenticate"], codeStepUp)
	if params == nil {
		return nil
	}
	var d access.Demand
	d.ACR = strings.Fields(params["acr_values"])
	if len(params["acr_values"]) > maxDemandACR || slices.ContainsFunc(d.ACR, func(acr string) bool { return !isACR(acr) }) {
		return nil
	}
	if text, ok := params["max_age"]; ok {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return nil
		}
		d.MaxAge = min(max(time.Duration(seconds)*time.Second, minDemandAge), maxDemandAge)
	}
	if len(d.ACR) == 0 && d.MaxAge == 0 {
		return nil
	}
	return &d
}

// isACR tells whether a strength can stand in a parameter and in a quoted string.
func isACR(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' })
}
