package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postern/session/redisstore"
)

// slow is a latency that people notice: a request that is not answered from the cache waits for Redis once or twice.
const slow = 5 * time.Millisecond

// redis looks at where sessions are.
func (o Options) redis(ctx context.Context) []Finding {
	var l list
	if o.Config.Session.Store.Redis == nil {
		l.pass("redis", "not used: sessions are in memory")
		return l.all
	}
	if o.Redis == nil { // whoever made the Options knows why
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.Limit)
	defer cancel()
	servers, err := o.Redis.Examine(ctx)
	if err != nil {
		found, mend := o.redisTrouble(err)
		l.fail("redis.reach", found, mend)
		return l.all
	}
	for _, c := range servers {
		s := list{subject: c.Address}
		o.redisServer(&s, c)
		l.all = append(l.all, s.all...)
	}
	return l.all
}

func (o Options) redisServer(l *list, c redisstore.Condition) {
	if c.Err != nil {
		found, mend := o.redisTrouble(c.Err)
		l.fail("redis.reach", found, mend)
		return
	}
	l.pass("redis.reach", "answers, and lets Postern in")
	if !c.Certificate.IsZero() {
		l.certificate("redis.tls", o.Now(), c.Certificate, "Renew the certificate of Redis")
	}
	o.redisLatency(l, c.Latency)
	o.redisCommands(l, c)
	if c.About == nil {
		l.warn("redis.info", "INFO may not be asked, so that version, eviction and persistence are not known", "Allow it: ACL SETUSER "+o.redisUser()+" +info")
		if c.ReadOnly {
			l.fail("redis.role", "takes no writes: it is a replica", replicaMend)
		}
		return
	}
	redisVersion(l, c)
	o.redisRole(l, c)
	redisMemory(l, c)
	redisDisk(l, c)
}

// redisTrouble says why Redis did not answer, or not as it should.
func (o Options) redisTrouble(err error) (found, mend string) {
	text := err.Error()
	switch {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "invalid password"), strings.Contains(text, "invalid username-password"):
		return "Redis refuses user name or password", "session.store.redis.password: write the password of user " + o.redisUser() + " (ACL LIST at Redis names the users)"
	case strings.Contains(text, "NOAUTH"):
		return "Redis wants a password", "session.store.redis.password: write it, and the user into url or username if it is not default"
	case strings.Contains(text, "without any password configured"):
		return "Redis has no password, but is sent one", "session.store.redis.password: leave it out, or set one at Redis (requirepass or ACL)"
	case strings.Contains(text, "read password"), strings.Contains(text, "password of the redis user is empty"):
		return text, "session.store.redis.password: its file or variable cannot be used"
	case strings.Contains(text, "NOPERM"):
		return "user " + o.redisUser() + " may not even PING", "Allow what Postern needs: ACL SETUSER " + o.redisUser() + " " + o.redisRights()
	case strings.Contains(text, "server is a replica"):
		return "the server that the sentinels name is a replica", replicaMend
	case strings.Contains(text, "does not know it"):
		return text, "session.store.redis.sentinel.master: write the name that the sentinels have for it"
	case strings.Contains(text, "cluster support disabled"):
		return "the server is no Redis Cluster", "session.store.redis.url: write its address there, in place of cluster"
	case strings.Contains(text, "MOVED"):
		return "the server is part of a Redis Cluster", "session.store.redis.cluster.addresses: write its nodes there, in place of url"
	case strings.Contains(text, "LOADING"):
		return "Redis is reading its data from disk", "Wait until it has"
	case strings.Contains(text, "DB index is out of range"):
		return "Redis does not have that database", "session.store.redis.url: end it with a number below Redis's own databases, such as /0"
	}
	w := where{address: "session.store.redis.url", ca: "session.store.redis.ca_file"}
	switch r := o.Config.Session.Store.Redis; {
	case r.Sentinel != nil:
		w.address = "session.store.redis.sentinel.addresses"
	case r.Cluster != nil:
		w.address = "session.store.redis.cluster.addresses"
	}
	found, mend = w.trouble(err)
	if strings.Contains(text, "EOF") || strings.Contains(text, "reset by peer") {
		mend = w.address + ": the server may want TLS (rediss://, or tls: true), or a client certificate (cert_file, key_file)"
	}
	return found, mend
}

func (o Options) redisLatency(l *list, median time.Duration) {
	limit := o.Config.Session.Store.Redis.Timeout
	found := fmt.Sprintf("answers in %s (median)", median.Round(10*time.Microsecond))
	if median > slow {
		l.warn("redis.latency", fmt.Sprintf("%s; each command may take %s", found, limit),
			"Bring Redis nearer, or find what keeps it busy (SLOWLOG GET); session.store.redis.timeout only allows for more")
		return
	}
	l.pass("redis.latency", found)
}

// redisCommands tells what the user may not do, with the line that allows it.
func (o Options) redisCommands(l *list, c redisstore.Condition) {
	for _, odd := range c.Odd {
		l.fail("redis.commands", "Redis answers wrongly: "+odd, "Use Redis 6.0 or newer, or what does the same; a proxy before it may lack commands")
	}
	if len(c.Forbidden) == 0 {
		if len(c.Odd) == 0 {
			l.pass("redis.commands", "every command that Postern needs is allowed")
		}
		return
	}
	var rights []string
	for _, what := range c.Forbidden {
		switch what {
		case "keys":
			rights = append(rights, o.redisKeys())
		case "channels":
			rights = append(rights, o.redisChannels())
		default:
			rights = append(rights, "+"+what)
		}
	}
	l.fail("redis.commands", "user "+o.redisUser()+" may not use: "+strings.Join(c.Forbidden, ", "),
		"At Redis: ACL SETUSER "+o.redisUser()+" "+strings.Join(rights, " ")+" (and ACL SAVE, or the same in its ACL file)")
}

// redisRights are all that Postern needs.
func (o Options) redisRights() string {
	return o.redisKeys() + " " + o.redisChannels() + " +" + strings.Join(redisstore.Commands(), " +")
}

func (o Options) redisKeys() string     { return "~" + o.Config.Session.Store.Redis.KeyPrefix + "*" }
func (o Options) redisChannels() string { return "&" + o.Config.Session.Store.Redis.KeyPrefix + "n*" }

// redisUser is who Postern is at Redis.
func (o Options) redisUser() string {
	r := o.Config.Session.Store.Redis
	switch {
	case r.Username != "":
		return r.Username
	case r.URL != nil && r.URL.User.Username() != "":
		return r.URL.User.Username()
	}
	return "default"
}

func redisVersion(l *list, c redisstore.Condition) {
	version := c.About["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err == nil && n < 6 {
		l.fail("redis.version", "is "+version, "Use Redis 6.0 or newer")
		return
	}
	l.pass("redis.version", fmt.Sprintf("%s, %s", version, c.About["redis_mode"]))
}

const replicaMend = "session.store.redis: name the master, or let sentinel find it; replicas take no writes"

func (o Options) redisRole(l *list, c redisstore.Condition) {
	replicas := int(c.Number("connected_slaves"))
	switch wanted := o.Config.Session.Store.Redis.Wait.Replicas; {
	case c.ReadOnly || c.About["role"] == "slave":
		mend := replicaMend
		if host := c.About["master_host"]; host != "" {
			mend += fmt.Sprintf("; its master is %s:%s", host, c.About["master_port"])
		}
		l.fail("redis.role", "is a replica: nothing can be written", mend)
	case replicas < wanted && o.Config.Session.Store.Redis.URL == nil:
		l.warn("redis.role", fmt.Sprintf("is a master with %d replicas connected; wait.replicas wants %d, and a failover can lose the newest sign-ins", replicas, wanted),
			"Let the replicas connect again, or set session.store.redis.wait.replicas: "+strconv.Itoa(replicas))
	default:
		l.pass("redis.role", fmt.Sprintf("is a master with %d replicas connected", replicas))
	}
}

// redisMemory looks at what Redis does when its memory is used up.
func redisMemory(l *list, c redisstore.Condition) {
	const mend = "At Redis: CONFIG SET maxmemory-policy noeviction (and the same in redis.conf)"
	policy, most, used := c.About["maxmemory_policy"], c.Number("maxmemory"), c.Number("used_memory")
	switch {
	case c.Full:
		l.fail("redis.memory", fmt.Sprintf("is full (%s of %s): nobody can sign in", mebibytes(used), mebibytes(most)), "Give Redis more memory (maxmemory), or a database of its own")
	case most > 0 && used*10 > most*9:
		l.warn("redis.memory", fmt.Sprintf("is nearly full (%s of %s)", mebibytes(used), mebibytes(most)), "Give Redis more memory (maxmemory)")
	case most > 0:
		l.pass("redis.memory", fmt.Sprintf("uses %s of %s", mebibytes(used), mebibytes(most)))
	default:
		l.pass("redis.memory", fmt.Sprintf("uses %s; there is no maxmemory", mebibytes(used)))
	}
	switch {
	case policy == "noeviction":
		l.pass("redis.eviction", "keeps what it has (noeviction)")
	case policy == "":
		l.warn("redis.eviction", "Redis does not tell what it does when its memory is used up", mend)
	case most > 0:
		l.fail("redis.eviction", "drops keys when its memory is used up ("+policy+"): people are signed out, and a sign-out by the provider may miss them", mend)
	default:
		l.warn("redis.eviction", "would drop keys ("+policy+") once it has a maxmemory", mend)
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// redisDisk tells what a restart of Redis means.
func redisDisk(l *list, c redisstore.Condition) {
	switch {
	case c.About["aof_enabled"] == "1":
		l.pass("redis.persistence", "writes to disk (appendonly), so that sessions outlive a restart")
	case c.About["aof_enabled"] == "0" && c.About["rdb_last_bgsave_status"] == "err":
		l.warn("redis.persistence", "its last snapshot failed", "See the log of Redis: the disk may be full")
	default:
		l.pass("redis.persistence", "does not write every change to disk (appendonly no): a restart can sign people out")
	}
}
