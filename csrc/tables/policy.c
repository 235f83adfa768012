/* policy.c - cilium_policy of every endpoint, and the choice of datapath reference 5.3 [C].
 *
 * Two hashes. Entries: the full key. Groups: one record for each (endpoint, direction, identity)
 * that says which prefix lengths its entries have, and where its entry without protocol and port
 * is; so a lookup probes only lengths that exist, and an allow-all costs one probe a group.
 * Groups follow from the entries and are rebuilt at attach.
 */
#include "tables/arena.h"
#include "tables/hashtab.h"

#include <errno.h>

enum { POLICY_PROTO_LEN = 8, POLICY_PORT_LEN = 24, POLICY_LENGTHS = POLICY_PORT_LEN + 1 };

struct policy_entry_key {
    uint32_t identity;
    uint16_t lxc_id;
    uint16_t port;
    uint8_t dir, proto, prefix_len;
    uint8_t pad;
};

struct policy_entry {
    struct hashtab_link link;
    struct policy_entry_key key;
    uint32_t rule_id;
    uint32_t deny;
    uint32_t pad;
    uint64_t packets, bytes;
};

struct policy_group_key {
    uint32_t identity;
    uint16_t lxc_id;
    uint8_t dir;
    uint8_t pad;
};

struct policy_group {
    struct hashtab_link link;
    struct policy_group_key key;
    uint32_t in_use;                /* bit per prefix length with entries */
    uint32_t any;                   /* reference: the entry of length 0 */
    uint32_t used[POLICY_LENGTHS];  /* entries by prefix length */
    uint32_t pad;
};

struct policy_table {
    uint64_t groups_offset;         /* from the table's first byte */
    uint8_t pad[56];
    struct hashtab entries;         /* the groups' table lies behind it */
};

static_assert(offsetof(struct policy_entry, key) == sizeof(struct hashtab_link), "key place");
static_assert(offsetof(struct policy_group, key) == sizeof(struct hashtab_link), "key place");
static_assert(offsetof(struct policy_table, entries) % TABLE_ALIGN == 0, "heads on cache lines");
static_assert(sizeof(struct policy_group) == 2 * TABLE_ALIGN, "a lookup reads the first line only");

static const struct hashtab_shape policy_entry_shape = {
    sizeof(struct policy_entry), sizeof(struct policy_entry_key)};
static const struct hashtab_shape policy_group_shape = {
    sizeof(struct policy_group), sizeof(struct policy_group_key)};

static struct hashtab *policy_groups(const struct policy_table *table)
{
    return (struct hashtab *)((uintptr_t)table + table->groups_offset);
}

static struct policy_entry *policy_entry_at(const struct policy_table *table, uint32_t ref)
{
    return hashtab_at(&table->entries, policy_entry_shape, ref);
}

/* ---- layout ---- */

static uint64_t policy_groups_offset(uint32_t cap)
{
    return offsetof(struct policy_table, entries) + hashtab_size(cap, policy_entry_shape);
}

uint64_t policy_size(uint32_t cap)
{
    return policy_groups_offset(cap) + hashtab_size(cap, policy_group_shape);
}

void policy_init(struct policy_table *table, uint32_t cap, uint64_t seed)
{
    memset(table, 0, sizeof(*table));
    table->groups_offset = policy_groups_offset(cap);
    hashtab_init(&table->entries, cap, seed);
    hashtab_init(policy_groups(table), cap, seed);
}

/* The part of a port that a prefix of @prefix_len covers. */
static uint16_t policy_port_mask(uint32_t prefix_len)
{
    if (prefix_len <= POLICY_PROTO_LEN)
        return 0;
    return (uint16_t)(0xffffu << (POLICY_PORT_LEN - prefix_len));
}

/* What is wrong with a key; NULL = nothing. */
static const char *policy_problem(const struct policy_entry_key *key)
{
    if (key->lxc_id == 0)
        return "endpoint ids are 1 to 65535";
    if (key->dir != FWD_DIR_INGRESS && key->dir != FWD_DIR_EGRESS)
        return "the direction is neither ingress nor egress";
    if (key->prefix_len > POLICY_PORT_LEN
        || (key->prefix_len > 0 && key->prefix_len < POLICY_PROTO_LEN))
        return "the prefix length is neither 0 nor 8 to 24";
    if ((key->prefix_len == 0) != (key->proto == 0))
        return "protocol 0 and prefix length 0 go together: both mean any";
    if (key->port & (uint16_t)~policy_port_mask(key->prefix_len))
        return "port bits are set behind the prefix";
    return NULL;
}

static bool policy_keep(const void *slot)
{
    const struct policy_entry *entry = slot;
    return !policy_problem(&entry->key) && entry->rule_id != 0 && entry->deny <= 1;
}

/* ---- groups ---- */

static struct policy_group_key policy_group_of(const struct policy_entry_key *key)
{
    return (struct policy_group_key){
        .identity = key->identity, .lxc_id = key->lxc_id, .dir = key->dir};
}

/* Cannot fail: there is room for as many groups as for entries. */
static void policy_group_add(struct policy_table *table, uint32_t ref)
{
    const struct policy_entry_key *key = &policy_entry_at(table, ref)->key;
    struct hashtab *groups = policy_groups(table);
    struct policy_group_key group_key = policy_group_of(key);
    bool fresh;
    uint32_t group_ref = hashtab_claim(groups, policy_group_shape, &group_key, &fresh);
    struct policy_group *group = hashtab_at(groups, policy_group_shape, group_ref);
    group->used[key->prefix_len]++;
    group->in_use |= 1u << key->prefix_len;
    if (key->prefix_len == 0)
        group->any = ref;
    hashtab_commit(groups, policy_group_shape, group_ref);
}

static void policy_group_remove(struct policy_table *table, const struct policy_entry_key *key)
{
    struct hashtab *groups = policy_groups(table);
    struct policy_group_key group_key = policy_group_of(key);
    uint32_t group_ref = hashtab_find(groups, policy_group_shape, &group_key);
    struct policy_group *group = hashtab_at(groups, policy_group_shape, group_ref);
    if (--group->used[key->prefix_len] == 0)
        group->in_use &= ~(1u << key->prefix_len);
    if (key->prefix_len == 0)
        group->any = 0;
    if (!group->in_use)
        hashtab_remove(groups, policy_group_shape, &group_key);
}

bool policy_validate(struct policy_table *table, uint64_t size, uint32_t cap)
{
    if (size < policy_size(cap) || table->groups_offset != policy_groups_offset(cap)
        || !hashtab_validate(&table->entries, cap, policy_entry_shape, policy_keep))
        return false;
    hashtab_init(policy_groups(table), cap, table->entries.seed);
    for (uint32_t ref = 0;
         (ref = hashtab_next(&table->entries, policy_entry_shape, ref)) != 0;)
        policy_group_add(table, ref);
    return true;
}

/* ---- lookup ---- */

/* The entry of @identity with the longest prefix over protocol and port; NULL = none. */
static const struct policy_entry *policy_longest(const struct policy_table *table,
                                                 const struct policy_key *key, uint32_t identity)
{
    const struct hashtab *groups = policy_groups(table);
    struct policy_group_key group_key = {
        .identity = identity, .lxc_id = key->lxc_id, .dir = key->dir};
    uint32_t ref = hashtab_find(groups, policy_group_shape, &group_key);
    if (!ref)
        return NULL;
    const struct policy_group *group = hashtab_at(groups, policy_group_shape, ref);
    uint32_t left = key->l3_l4 ? group->in_use & ~1u : 0;
    while (left) {
        uint32_t prefix_len = 31 - (uint32_t)__builtin_clz(left);
        left &= ~(1u << prefix_len);
        struct policy_entry_key entry_key = {
            .identity = identity, .lxc_id = key->lxc_id, .dir = key->dir, .proto = key->proto,
            .port = key->port & policy_port_mask(prefix_len),
            .prefix_len = (uint8_t)prefix_len};
        ref = hashtab_find(&table->entries, policy_entry_shape, &entry_key);
        if (ref)
            return policy_entry_at(table, ref);
    }
    return group->any ? policy_entry_at(table, group->any) : NULL;
}

static enum fwd_policy_match policy_match(const struct policy_entry_key *key)
{
    if (key->prefix_len == 0)
        return key->identity ? FWD_MATCH_L3_ONLY : FWD_MATCH_ALL;
    if (key->prefix_len == POLICY_PROTO_LEN)
        return key->identity ? FWD_MATCH_L3_PROTO : FWD_MATCH_PROTO_ONLY;
    return key->identity ? FWD_MATCH_L3_L4 : FWD_MATCH_L4_ONLY;
}

/* Source: Cilium's __policy_can_access [C]; the order is datapath reference 5.3. Identity 0 has no
 * L3 lookup of its own: its key is the one of "any". */
static const struct policy_entry *policy_choose(const struct policy_table *table,
                                                const struct policy_key *key)
{
    const struct policy_entry *l3 = NULL;
    if (key->identity)
        l3 = policy_longest(table, key, key->identity);
    if (l3 && l3->deny)
        return l3;
    const struct policy_entry *l4_only = policy_longest(table, key, 0);
    if (l4_only && (!l3 || l4_only->deny || l4_only->key.prefix_len > l3->key.prefix_len))
        return l4_only;
    return l3;
}

struct policy_result policy_lookup(const struct policy_table *table, const struct policy_key *key)
{
    const struct policy_entry *entry = policy_choose(table, key);
    if (!entry)
        return (struct policy_result){
            .drop = FWD_DROP_POLICY_DENIED, .entry = UINT32_MAX, .match = FWD_MATCH_NONE};
    return (struct policy_result){
        .drop = entry->deny ? FWD_DROP_POLICY_DENY : FWD_DROP_NONE,
        .rule_id = entry->rule_id,
        .entry = (uint32_t)(entry - policy_entry_at(table, 1)),
        .match = (uint8_t)policy_match(&entry->key)};
}

void policy_count(struct policy_table *table, uint32_t entry, uint32_t len)
{
    if (entry >= table->entries.top)
        return; /* the lookup found none */
    struct policy_entry *counted = policy_entry_at(table, entry + 1);
    counted->packets++;
    counted->bytes += len;
}

void policy_row(const struct policy_table *table, uint32_t entry, struct fwd_policy_row *row)
{
    memset(row, 0, sizeof(*row));
    if (entry >= table->entries.top)
        return;
    const struct policy_entry *from = policy_entry_at(table, entry + 1);
    *row = (struct fwd_policy_row){
        .identity = from->key.identity, .rule_id = from->rule_id, .lxc_id = from->key.lxc_id,
        .port = from->key.port, .dir = from->key.dir, .proto = from->key.proto,
        .prefix_len = from->key.prefix_len, .deny = (uint8_t)from->deny,
        .packets = from->packets, .bytes = from->bytes};
}

/* ---- control's side ---- */

static struct policy_entry_key policy_key_of(const struct fwd_policy_row *row)
{
    return (struct policy_entry_key){
        .identity = row->identity, .lxc_id = row->lxc_id, .port = row->port, .dir = row->dir,
        .proto = row->proto, .prefix_len = row->prefix_len};
}

int policy_upsert(struct policy_table *table, const struct fwd_policy_row *row,
                  struct fwd_error *err)
{
    struct policy_entry_key key = policy_key_of(row);
    const char *problem = policy_problem(&key);
    if (!problem && row->rule_id == 0)
        problem = "rule id 0 means no rule";
    if (problem) {
        error_set(err, EINVAL, "writing policy of endpoint %u (direction %u, identity %u, "
                  "protocol %u, port %u/%u): %s", row->lxc_id, row->dir, row->identity, row->proto,
                  row->port, row->prefix_len, problem);
        return -1;
    }
    bool fresh;
    uint32_t ref = hashtab_claim(&table->entries, policy_entry_shape, &key, &fresh);
    if (!ref) {
        error_set(err, ENOSPC, "writing policy of endpoint %u: the table is full with %u entries; "
                  "use fewer rules or port ranges, or raise its capacity and restart",
                  row->lxc_id, table->entries.cap);
        return -1;
    }
    struct policy_entry *entry = policy_entry_at(table, ref);
    entry->rule_id = row->rule_id;
    entry->deny = row->deny != 0;
    hashtab_commit(&table->entries, policy_entry_shape, ref);
    if (fresh)
        policy_group_add(table, ref);
    return 0;
}

int policy_delete(struct policy_table *table, const struct fwd_policy_row *key)
{
    struct policy_entry_key entry_key = policy_key_of(key);
    if (!hashtab_remove(&table->entries, policy_entry_shape, &entry_key))
        return 0;
    policy_group_remove(table, &entry_key);
    return 1;
}

uint32_t policy_dump(const struct policy_table *table, uint64_t *cursor,
                     struct fwd_policy_row *rows, uint32_t cap)
{
    uint32_t n = 0, ref = 0;
    while (n < cap
           && (ref = hashtab_next(&table->entries, policy_entry_shape, *cursor)) != 0) {
        policy_row(table, ref - 1, &rows[n++]);
        *cursor = ref;
    }
    if (n < cap)
        *cursor = 0;
    return n;
}

void policy_stats(const struct policy_table *table, struct fwd_table_stats *stats)
{
    hashtab_stats(&table->entries, policy_entry_shape, stats);
    stats->size = policy_size(table->entries.cap);
}

/* ---- abi.h ---- */

int fwd_policy_upsert(struct fwd_dp *dp, const struct fwd_policy_row *row, struct fwd_error *err)
{
    return policy_upsert(dp->policy, row, err);
}

int fwd_policy_delete(struct fwd_dp *dp, const struct fwd_policy_row *key)
{
    return policy_delete(dp->policy, key);
}

int fwd_policy_lookup(struct fwd_dp *dp, uint16_t lxc_id, uint8_t dir, uint32_t identity,
                      uint8_t proto, uint16_t port, struct fwd_policy_row *row, uint8_t *match)
{
    struct policy_key key = {.lxc_id = lxc_id, .port = port, .identity = identity, .dir = dir,
                             .proto = proto, .l3_l4 = true};
    struct policy_result result = policy_lookup(dp->policy, &key);
    policy_row(dp->policy, result.entry, row);
    *match = result.match;
    return (int)result.drop;
}

uint32_t fwd_policy_dump(struct fwd_dp *dp, uint64_t *cursor, struct fwd_policy_row *rows,
                         uint32_t cap)
{
    return policy_dump(dp->policy, cursor, rows, cap);
}
