package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"postern/config"
	"postern/proxy"
	"postern/proxy/idp"
	"postern/session"
)

// outOfBand is the redirect URI with which a provider displays the code instead of delivering it.
const outOfBand = "urn:ietf:wg:oauth:2.0:oob"

// maxWait bounds --timeout; nobody sits there for longer.
const maxWait = 24 * time.Hour

// login is one sign-in from a terminal. It keeps nothing.
type login struct {
	terminal
	advisor  // of the provider
	cfg      *config.Config
	provider *idp.Provider

	port       int           // of the loopback listener; 0: any
	timeout    time.Duration // how long a person may take
	showTokens bool
	browse     func(address string) error // opens a browser; nil: the address is printed alone
}

// newLogin signs in as Postern would, for whoever wants to know why it does not work.
func newLogin(o *options) *cobra.Command {
	l := &login{}
	var open bool
	cmd := &cobra.Command{
		Use: "login [PROVIDER]", Short: "Sign in from this terminal and show what came of it", Args: cobra.MaximumNArgs(1),
		Long: "login signs in at one provider of the configuration, with its settings and nothing of a running Postern: it shows the identity and the\n" +
			"tokens that came back, which routes would let that person in, and then refreshes the tokens once. PROVIDER may be left out where\n" +
			"the configuration has one only. What fails names the key to change, and makes the exit code 1; a route that denies does not, nor does a\n" +
			"provider that gives no refresh token.\n\n" +
			"The code comes by redirect to this machine (RFC 8252): to the provider's redirect_uri, else to http://127.0.0.1:PORT/callback. That redirect\n" +
			"URI must be registered at the provider. Where the browser runs elsewhere, paste the address at which it ends up. With\n" +
			"redirect_uri: " + outOfBand + " paste the code that the provider displays. With grant: password login asks for user name\n" +
			"and password; from a pipe they are the first two lines.\n\n" +
			"The provider counts this as a sign-in like any other, and its tokens stay valid there.",
		RunE: func(cmd *cobra.Command, args []string) error {
			l.terminal = newTerminal(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			if open {
				l.browse = openBrowser
			}
			return l.start(cmd.Context(), o, strings.Join(args, ""))
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&l.port, "port", 0, "port on 127.0.0.1 for the redirect, where redirect_uri names none (default: any)")
	flags.DurationVar(&l.timeout, "timeout", 5*time.Minute, "how long to wait for you to sign in")
	flags.BoolVar(&open, "open", false, "open the address in a browser, where there is a display")
	flags.BoolVar(&l.showTokens, "show-tokens", false, "print the tokens themselves; whoever sees them can use them")
	return cmd
}

// start reads the configuration and makes the provider.
func (l *login) start(ctx context.Context, o *options, name string) error {
	if l.timeout <= 0 || l.timeout > maxWait {
		return fmt.Errorf("--timeout must be more than 0s and at most %s", maxWait)
	}
	if l.port < 0 || l.port > 65535 {
		return errors.New("--port must be between 1 and 65535")
	}
	var err error
	if l.cfg, err = load(o); err != nil {
		return err
	}
	if l.c, err = chooseProvider(l.cfg, name); err != nil {
		return err
	}
	if problems := l.filesOf(l.c); len(problems) > 0 {
		return problems
	}
	if l.c.RedirectURI == outOfBand {
		l.c.ResponseMode = "query" // nothing is posted to a person
	}
	if l.provider, err = proxy.NewProvider(l.cfg, l.c, proxy.Env{Log: l.logger(o.logLevel)}); err != nil {
		return fmt.Errorf("providers.%s: %w", l.c.Name, err)
	}
	return l.run(ctx)
}

// chooseProvider finds the provider that is meant.
func chooseProvider(cfg *config.Config, name string) (config.Provider, error) {
	if name == "" && len(cfg.Providers) == 1 {
		return cfg.Providers[0], nil
	}
	if c, ok := cfg.Providers.Lookup(name); ok {
		return c, nil
	}
	var names []string
	for _, c := range cfg.Providers {
		names = append(names, c.Name)
	}
	if name == "" {
		return config.Provider{}, fmt.Errorf("which provider? Name one of %s", strings.Join(names, ", "))
	}
	return config.Provider{}, fmt.Errorf("no provider is named %q: providers has %s", name, strings.Join(names, ", "))
}

// filesOf are the problems with the files that one provider names; those of others do not matter here.
func (l *login) filesOf(c config.Provider) config.Problems {
	var own config.Problems
	for _, p := range l.cfg.CheckFiles().Errors() {
		if strings.HasPrefix(p.Path, "providers."+c.Name+".") {
			own = append(own, p)
		}
	}
	return own
}

// logger writes what the provider module has to say, without the time: someone is looking on.
func (l *login) logger(level string) *slog.Logger {
	at := slog.LevelWarn
	if level != "" {
		_ = at.UnmarshalText([]byte(level)) // checked by config
	}
	return slog.New(slog.NewTextHandler(l.notes, &slog.HandlerOptions{Level: at, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == "provider") {
			return slog.Attr{}
		}
		return a
	}}))
}

// run signs in, tells, and refreshes once.
//
// Flow: discover → sign in (a redirect, a pasted code or a password) → identity, tokens, routes → one refresh.
func (l *login) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = l.provider.Run(ctx) })
	defer running.Wait()
	defer stop()

	if err := l.discover(ctx); err != nil {
		return l.failed(ctx, discovering, err)
	}
	grant, at, err := l.signIn(ctx)
	if err != nil {
		return l.failed(ctx, at, err)
	}
	l.tellGrant(grant)
	l.tellRoutes(ctx, grant)
	return l.refresh(ctx, grant)
}

// discover waits for the provider's metadata, or for the first problem with them.
func (l *login) discover(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !l.provider.Discovered() {
		if problem := l.provider.Problem(); problem != idp.ErrNotDiscovered.Error() && problem != "" {
			return errors.New(problem)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// signIn obtains a grant the way the provider is configured, and says how far it came.
func (l *login) signIn(ctx context.Context) (session.Grant, stage, error) {
	if l.c.RefreshTokenScope == "user" {
		l.note("At this provider a new sign-in ends the refresh tokens of the person's older ones (refresh_token_scope: user).")
	}
	if l.c.Grant == "password" {
		grant, err := l.passwordGrant(ctx)
		return grant, password, err
	}
	begin := idp.Begin{State: rand.Text()}
	if _, err := rand.Read(begin.Secret[:]); err != nil {
		return session.Grant{}, authorizing, err
	}
	params, redirectURI, err := l.authorize(ctx, begin)
	if err != nil {
		return session.Grant{}, authorizing, err
	}
	grant, err := l.provider.Finish(ctx, idp.Finish{
		Params: params.Values, Posted: params.posted, Secret: begin.Secret, RedirectURI: redirectURI,
	})
	if _, refused := errors.AsType[*idp.AuthorizationError](err); refused {
		return grant, authorizing, err // that was said where the person was sent, before any other request
	}
	return grant, finishing, err
}

// authorize sends the person to the provider and waits for the answer.
func (l *login) authorize(ctx context.Context, begin idp.Begin) (answer, string, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, l.timeout, errWaited)
	defer cancel()
	if l.c.RedirectURI == outOfBand {
		begin.RedirectURI = outOfBand
		if err := l.send(ctx, begin); err != nil {
			return answer{}, "", err
		}
		a, err := l.pastedCode(waiting, begin.State)
		return a, outOfBand, err
	}
	c, err := l.listen(ctx, begin.State)
	if err != nil {
		return answer{}, "", err
	}
	defer c.close()
	begin.RedirectURI = c.redirectURI
	if err := l.send(ctx, begin); err != nil {
		return answer{}, "", err
	}
	l.note("Waiting up to %s for the browser to come back; Ctrl-C ends it. If it cannot reach this machine, paste here the address at which it ends up.", l.timeout)
	go l.pastedAddresses(waiting, c) // ends with the wait or with its line
	a, err := c.wait(waiting)
	return a, c.redirectURI, err
}

// send shows the address at the provider, and opens it where that is wanted.
func (l *login) send(ctx context.Context, begin idp.Begin) error {
	address, err := l.provider.Begin(ctx, begin)
	if err != nil {
		return err
	}
	l.say("Redirect URI: %s", begin.RedirectURI)
	if begin.RedirectURI != outOfBand {
		l.say("It must be registered for client %s at the provider%s.", l.c.ClientID, l.anyPort())
	}
	l.say("\nSign in at this address:\n\n  %s\n", address)
	if l.browse != nil {
		if err := l.browse(address); err != nil {
			l.note("No browser was opened: %v", err)
		}
	}
	return nil
}

// anyPort explains a port that is another one each time.
func (l *login) anyPort() string {
	if l.port != 0 || namesPort(l.c.RedirectURI) {
		return ""
	}
	return "; one that follows RFC 8252 takes any port, for others choose one with --port or redirect_uri"
}

// passwordGrant asks for a user name and a password.
func (l *login) passwordGrant(ctx context.Context) (session.Grant, error) {
	waiting, cancel := context.WithTimeoutCause(ctx, l.timeout, errWaited)
	defer cancel()
	l.prompt("User name: ")
	user, err := l.line(waiting)
	if err != nil {
		return session.Grant{}, fmt.Errorf("read the user name: %w", err)
	}
	l.prompt("Password: ")
	secret, err := l.hidden(waiting)
	if err != nil {
		return session.Grant{}, fmt.Errorf("read the password: %w", err)
	}
	return l.provider.Password(ctx, user, secret)
}

// refresh spends the refresh token once and tells what became of it.
func (l *login) refresh(ctx context.Context, grant session.Grant) error {
	l.say("\nRefresh")
	if grant.Tokens.Refresh == "" {
		l.row("refresh token", "none came, so a session ends with its access token")
		l.advice(l.noRefreshToken())
		return nil
	}
	next, err := l.provider.Refresh(ctx, grant)
	if err != nil {
		l.row("result", "failed")
		if refused, ok := errors.AsType[*session.RefreshError](err); ok {
			err = refused.Err
		}
		return l.failed(ctx, refreshing, err)
	}
	l.row("access token", l.token(next.Tokens.Access))
	l.row("expires", l.expiry(next.Tokens))
	if next.Tokens.Refresh == grant.Tokens.Refresh {
		l.row("refresh token", "stayed: the provider sent the same one or none, and Postern goes on with it")
	} else {
		l.row("refresh token", "rotated: "+l.token(next.Tokens.Refresh))
	}
	return nil
}

// openBrowser hands an address to the desktop. It does not wait for the browser.
func openBrowser(address string) error {
	var opener []string
	switch runtime.GOOS {
	case "darwin":
		opener = []string{"open"}
	case "windows":
		opener = []string{"rundll32", "url.dll,FileProtocolHandler"}
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return errors.New("there is no display")
		}
		opener = []string{"xdg-open"}
	}
	cmd := exec.Command(opener[0], append(opener[1:], address)...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // ends with the opener
	return nil
}

// say prints a line of the result.
func (l *login) say(format string, args ...any) { fmt.Fprintf(l.out, format+"\n", args...) }

// note prints what goes on.
func (l *login) note(format string, args ...any) { fmt.Fprintf(l.notes, format+"\n", args...) }

// prompt asks for a line.
func (l *login) prompt(text string) { _, _ = io.WriteString(l.notes, text) }
