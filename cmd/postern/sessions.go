package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxPages bounds how many pages of sessions list reads, of 1,000 each.
const maxPages = 1000

// sessionsCommand is one run of `postern sessions`.
type sessionsCommand struct {
	terminal
	flags                    adminFlags
	user, sub, sid, provider string
	format                   string
	yes                      bool
}

// listedSession is what the admin listener tells of a session.
type listedSession struct {
	ID       string    `json:"id"`
	Session  string    `json:"session"`
	Provider string    `json:"provider"`
	User     string    `json:"user"`
	Subject  string    `json:"sub"`
	SID      string    `json:"sid,omitempty"`
	Browser  string    `json:"browser"`
	Created  time.Time `json:"created"`
	Seen     time.Time `json:"seen"`
	Ends     time.Time `json:"ends"`
}

// newSessions lists and ends sessions through the admin listener of a running Postern.
func newSessions(o *options) *cobra.Command {
	c := &sessionsCommand{}
	cmd := &cobra.Command{
		Use: "sessions", Short: "List or end people's sessions of a running Postern", Args: cobra.NoArgs,
		Long: "sessions asks the admin listener of a running Postern. Its address and token are those of the configuration file; --admin and --token-file\n" +
			"replace them, for another machine. It needs server.admin. Where that asks for a client certificate, name it with --cert and --key.\n\n" +
			"A session is over for every replica at once, and whoever used it has to sign in again; the provider may do that without asking, as long as\n" +
			"the person is signed in there. To keep somebody out, disable the account at the provider first.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.flags.url, "admin", "", "the admin listener, such as http://127.0.0.1:9090 (default: the configuration's)")
	flags.StringVar(&c.flags.tokenFile, "token-file", "", "file of the admin token (default: the configuration's token)")
	flags.StringVar(&c.flags.ca, "ca", "", "PEM file of the CA of the admin listener's certificate")
	flags.StringVar(&c.flags.cert, "cert", "", "PEM file of a client certificate")
	flags.StringVar(&c.flags.key, "key", "", "PEM file of its key")
	cmd.AddCommand(c.newList(o), c.newEnd(o))
	return cmd
}

func (c *sessionsCommand) selection(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&c.user, "user", "", "the person, as identity headers name it")
	flags.StringVar(&c.sub, "sub", "", "the person, as the provider names it (the claim sub)")
	flags.StringVar(&c.sid, "sid", "", "the provider's name for its own session (the claim sid)")
	flags.StringVar(&c.provider, "provider", "", "at this provider of the configuration only")
}

func (c *sessionsCommand) newList(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list --user NAME | --sub SUBJECT | --sid SID", Short: "List someone's sessions, the newest sign-in first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.format != "table" && c.format != "json" {
				return errors.New("--format must be table or json")
			}
			query, err := c.query()
			if err != nil {
				return err
			}
			client, err := newAdminClient(o, c.flags)
			if err != nil {
				return err
			}
			list, err := client.list(cmd.Context(), query)
			if err != nil {
				return err
			}
			return c.print(cmd.OutOrStdout(), list)
		},
	}
	c.selection(cmd)
	cmd.Flags().StringVar(&c.format, "format", "table", "table or json")
	return cmd
}

func (c *sessionsCommand) newEnd(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "end ID… | --user NAME | --sub SUBJECT | --sid SID", Short: "End sessions by their ids, or all that someone has",
		RunE: func(cmd *cobra.Command, ids []string) error {
			c.terminal = newTerminal(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			if len(ids) > 0 && (c.user != "" || c.sub != "" || c.sid != "" || c.provider != "") {
				return errors.New("name ids, or a person: not both")
			}
			var query url.Values
			if len(ids) == 0 {
				var err error
				if query, err = c.query(); err != nil {
					return err
				}
			}
			client, err := newAdminClient(o, c.flags)
			if err != nil {
				return err
			}
			if len(ids) > 0 {
				return c.endIDs(cmd.Context(), client, ids)
			}
			return c.endAll(cmd.Context(), client, query)
		},
	}
	c.selection(cmd)
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask before ending all of someone's sessions")
	return cmd
}

// query is what the flags select: exactly one name, so that nothing wider can be meant.
func (c *sessionsCommand) query() (url.Values, error) {
	q := url.Values{}
	for name, value := range map[string]string{"user": c.user, "sub": c.sub, "sid": c.sid} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if len(q) != 1 {
		return nil, errors.New("name whose sessions: exactly one of --user, --sub and --sid")
	}
	if c.provider != "" {
		q.Set("provider", c.provider)
	}
	return q, nil
}

// list reads all pages.
func (c *adminClient) list(ctx context.Context, query url.Values) ([]listedSession, error) {
	all := []listedSession{}
	query.Set("limit", "1000")
	defer query.Del("limit")
	defer query.Del("after")
	for range maxPages {
		var page struct {
			Sessions []listedSession `json:"sessions"`
			Next     string          `json:"next"`
		}
		if err := c.do(ctx, http.MethodGet, "/sessions?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		if all = append(all, page.Sessions...); page.Next == "" {
			return all, nil
		}
		query.Set("after", page.Next)
	}
	return nil, errors.New("the list does not end")
}

func (c *sessionsCommand) print(w io.Writer, list []listedSession) error {
	if c.format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no sessions")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tPROVIDER\tUSER\tBROWSER\tSIGNED IN\tLAST USED\tENDS")
	for _, s := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(s.ID), printable(s.Provider), printable(s.User), printable(s.Browser), minute(s.Created), minute(s.Seen), minute(s.Ends))
	}
	return table.Flush()
}

// minute is a time as an operator reads it, in the zone of this machine.
func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// endIDs ends one after the other; one that does not live makes the exit code 1 and stops nothing.
func (c *sessionsCommand) endIDs(ctx context.Context, client *adminClient, ids []string) error {
	missing := 0
	for _, id := range ids {
		var answer struct {
			Ended int `json:"ended"`
		}
		err := client.do(ctx, http.MethodDelete, "/sessions/"+url.PathEscape(id), &answer)
		var problem *adminProblem
		switch {
		case errors.As(err, &problem) && problem.Code == "no_session":
			missing++
			fmt.Fprintf(c.notes, "%s: no live session has this id\n", printable(id))
		case err != nil:
			return err
		default:
			fmt.Fprintf(c.out, "ended %s\n", printable(id))
		}
	}
	if missing > 0 {
		return quietError{}
	}
	return nil
}

// endAll ends everything that the query selects, after a question.
func (c *sessionsCommand) endAll(ctx context.Context, client *adminClient, query url.Values) error {
	if !c.yes {
		if err := c.confirm(ctx, client, query); err != nil {
			return err
		}
	}
	var answer struct {
		Ended int `json:"ended"`
	}
	err := client.do(ctx, http.MethodDelete, "/sessions?"+query.Encode(), &answer)
	var problem *adminProblem
	if errors.As(err, &problem) && problem.Ended > 0 {
		fmt.Fprintf(c.out, "ended %s\n", count(problem.Ended, "session"))
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "ended %s\n", count(answer.Ended, "session"))
	return err
}

// confirm asks the person at the terminal. Without one nobody can say yes.
func (c *sessionsCommand) confirm(ctx context.Context, client *adminClient, query url.Values) error {
	f, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return errors.New("this ends all sessions that match, and there is no terminal to ask: add --yes")
	}
	list, err := client.list(ctx, query)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.notes, "End %s? [y/N] ", count(len(list), "session"))
	answer, err := c.line(ctx)
	if err != nil {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was ended")
	}
	return nil
}
