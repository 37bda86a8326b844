-- Leases: for a short time an instance serves hits from a version read without asking again, and a write waits until no
-- lease is left that shows an older version. docs/adr/0011 argues why no hit is stale; tests/it/lease_model searches a
-- model of it.
--
-- `read_versions_leased` draws a ticket before it reads the versions. A writer, which has stopped new leases, compares
-- the number of tickets with the number that writers have waited for, and sleeps for the duration of a lease if they
-- differ. It sleeps in the triggers of the commit, so every program is waited for that changes the tables.
--
-- An instance that serves a write surrenders its leases before: it calls `surrender_leases` with their tickets. If these
-- are all tickets since the last one that has expired, the write need not wait. With one instance, no write waits.

-- As V11 does. A transaction with rows in one of the first three tables ends before, also one that is prepared: its commit
-- runs the present functions, which wait for no lease. The statements that follow need no other lock that a request holds.
-- All timeouts together are shorter than a second, after which PostgreSQL would find a deadlock and end a request, not
-- the attempt.
do $$
begin
    perform set_config('lock_timeout', '100ms', true);
    loop
        begin
            lock table catalogue_changes, pending_revocations, pending_version_bumps in share mode;
            lock table catalogue_commit_lock, accounts_commit_lock, catalogue_versions, accounts_versions
                in access exclusive mode;
            exit;
        exception when lock_not_available or deadlock_detected then
            perform pg_sleep(0.1);
        end;
    end loop;
    perform set_config('lock_timeout', '0', true);
end
$$;

-- The duration of a lease in milliseconds; 0: there are none. A column of the row that each writer locks: PostgreSQL
-- fails a writer whose snapshot shows a former duration, at repeatable read and serializable. The upper bound is half
-- of the lock timeout of the serving role, for the writers that queue behind one that waits. `set_lease_duration`
-- changes both rows.
alter table catalogue_commit_lock
    add column lease_ms integer not null default 0 check (lease_ms between 0 and 1000);
alter table accounts_commit_lock
    add column lease_ms integer not null default 0 check (lease_ms between 0 and 1000);

-- How long the writer of a version has waited for leases.
alter table catalogue_versions add column lease_wait_ms integer not null default 0;
alter table accounts_versions add column lease_wait_ms integer not null default 0;

-- The number of leases so far, and the number of the last one that writers have waited for. Sequences, because a writer
-- sees their values whatever its snapshot, and because a writer that fails after it has waited leaves the next one
-- nothing to wait for.
create sequence lease_tickets;
create sequence expired_lease_tickets minvalue 0;

-- Has a page once a writer has waited. PostgreSQL empties an unlogged table when it recovers from a crash, and when it
-- promotes a standby. Then it may have lost the last tickets, so writers wait until one of them has waited. An unlogged
-- sequence would not do: PostgreSQL 15 fails to reset one that is younger than the last checkpoint.
create unlogged table lease_wait_marker ();

-- After a crash, or the promotion of a standby, PostgreSQL may draw numbers of the sequence again. It empties unlogged
-- tables then: the leased read that finds this one empty inserts another epoch.
create unlogged table lease_epoch (
    epoch uuid not null default gen_random_uuid()
);

-- Writers lock it in row exclusive mode, in which they do not exclude each other, and leased reads in share mode. It is
-- empty. An advisory lock would do the same, but needs no privilege: every role that can connect could stop all writers.
create table lease_lock ();

-- Waits until all leases have expired that show an older version than the one that this transaction commits, and
-- keeps new ones away until it ends. Returns the waiting time in milliseconds. The caller holds a commit lock, whose row
-- has the duration.
create function wait_for_leases(duration_ms integer) returns integer
    language plpgsql
    set search_path = public, pg_temp
as $$
declare
    drawn   bigint;
    -- null if no writer has waited yet
    expired bigint;
begin
    if duration_ms = 0 then
        return 0;
    end if;
    lock table lease_lock in row exclusive mode;
    select case when is_called then last_value else 0 end into drawn from lease_tickets;
    select case when is_called then last_value end into expired from expired_lease_tickets;
    if drawn = expired and pg_relation_size('lease_wait_marker') > 0 then
        return 0;
    end if;
    perform pg_sleep(duration_ms / 1000.0);
    perform setval('expired_lease_tickets', drawn);
    if pg_relation_size('lease_wait_marker') = 0 then
        insert into lease_wait_marker default values;
    end if;
    return duration_ms;
end
$$;

create or replace function insert_catalogue_version() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    -- an assignment costs less than `perform`
    unused   text;
    duration integer;
begin
    if current_setting('testshop.catalogue_version', true) is distinct from new.transaction::text then
        unused := set_config('testshop.catalogue_version', new.transaction::text, true);
        select lease_ms into duration from catalogue_commit_lock for update;
        if not found then
            raise exception 'the row of table catalogue_commit_lock is missing: lists would go stale';
        end if;
        insert into catalogue_versions (transaction, lease_wait_ms)
        values (new.transaction, wait_for_leases(duration));
    end if;
    return null;
end
$$;

create or replace function apply_pending_revocations(committing xid8) returns void
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    max_accounts constant integer := 1000;
    step         constant uuid := gen_random_uuid();
    accounts     bigint;
    tokens       bigint;
    duration     integer;
    waited       integer;
begin
    select count(*) filter (where token_id is null), count(token_id)
      into accounts, tokens
      from pending_revocations
     where transaction = committing;
    if accounts > max_accounts then
        delete from pending_revocations
         where transaction = committing
           and token_id is null;
        insert into pending_revocations (transaction) values (committing);
        accounts := 1;
    end if;
    if accounts + tokens = 0 then
        return;
    end if;
    -- until the commit, so that the numbers are in the order of the commits
    select lease_ms into duration from accounts_commit_lock for update;
    if not found then
        raise exception 'the row of table accounts_commit_lock is missing: revoked tokens would stay valid';
    end if;
    waited := wait_for_leases(duration);
    with moved as (
        delete from pending_revocations
         where transaction = committing
        returning token_id, user_id, expires_at
    ), numbered as (
        insert into revocations (seq, token_id, user_id, expires_at, version_token)
        select nextval('accounts_versions_version_seq'), token_id, user_id, expires_at, step
          from moved
        returning seq
    )
    insert into accounts_versions (version, token, lease_wait_ms)
    select max(seq), step, waited
      from numbered;
end
$$;

-- Returns the versions, and for how many milliseconds they may be used since before the statement was sent: null while a
-- writer commits; 0 if a version is younger than `min_age_ms`, so that of a series of writes one waits, and in a
-- transaction that is read-only, such as each on a standby, or not at read committed, where all statements share one
-- snapshot. Returns the ticket of a lease too, and the epoch that it belongs to.
--
-- The lock lasts until the end of the transaction, so the statement should be a transaction of its own.
create function read_versions_leased(
    min_age_ms            integer,
    out catalogue_version bigint,
    out catalogue_token   uuid,
    out accounts_version  bigint,
    out accounts_token    uuid,
    out lease_ms          integer,
    out ticket            bigint,
    out epoch             uuid
) returns record
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    setting text;
begin
    lease_ms := 0;
    if current_setting('transaction_isolation') = 'read committed' and current_setting('transaction_read_only') = 'off'
    then
        begin
            lock table lease_lock in share mode nowait;
            select case
                       when greatest(catalogue.changed_at, accounts.changed_at)
                                > clock_timestamp() - min_age_ms * interval '1 ms' then 0
                       else least(catalogue_commit_lock.lease_ms, accounts_commit_lock.lease_ms)
                   end
              into strict read_versions_leased.lease_ms
              from catalogue_commit_lock,
                   accounts_commit_lock,
                   (select changed_at from catalogue_versions order by version desc limit 1) catalogue,
                   (select changed_at from accounts_versions order by version desc limit 1) accounts;
            if read_versions_leased.lease_ms > 0 then
                -- one ticket in 32 is logged, and may be lost: see lease_wait_marker
                setting := set_config('synchronous_commit', 'off', true);
                ticket := nextval('lease_tickets');
                select lease_epoch.epoch into read_versions_leased.epoch from lease_epoch limit 1;
                if not found then
                    insert into lease_epoch default values
                    returning lease_epoch.epoch into read_versions_leased.epoch;
                end if;
            end if;
        exception when lock_not_available then
            lease_ms := null;
        end;
    end if;
    -- a statement after the lock: its snapshot shows every commit that has released the lock
    select catalogue.version, catalogue.token, accounts.version, accounts.token
      into strict catalogue_version, catalogue_token, accounts_version, accounts_token
      from (select version, token from catalogue_versions order by version desc limit 1) catalogue,
           (select version, token from accounts_versions order by version desc limit 1) accounts;
end
$$;

-- Takes note that no lease of the tickets from `first_ticket` to `last_ticket` is used any more, and returns true, if
-- these are all tickets since the last one that has expired. What is surrendered stays so: a call that arrives late is
-- right as well. The caller drew all of these tickets in this epoch.
create function surrender_leases(first_ticket bigint, last_ticket bigint, ticket_epoch uuid) returns boolean
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    drawn   bigint;
    expired bigint;
    setting text;
begin
    select last_value into drawn from lease_tickets;
    select last_value into expired from expired_lease_tickets;
    if drawn <> last_ticket or expired < first_ticket - 1
        or not exists (select from lease_epoch where epoch = ticket_epoch)
    then
        return false;
    end if;
    -- lost in a crash, it would be waited for
    setting := set_config('synchronous_commit', 'off', true);
    perform setval('expired_lease_tickets', last_ticket);
    return true;
end
$$;

-- Changes the duration of leases, and returns the former one. The leases of the former duration expire before.
create function set_lease_duration(duration_ms integer) returns integer
    language plpgsql
    set search_path = public, pg_temp
as $$
declare
    former integer;
begin
    perform from catalogue_commit_lock, accounts_commit_lock
      where catalogue_commit_lock.lease_ms = duration_ms
        and accounts_commit_lock.lease_ms = duration_ms;
    if found then
        return duration_ms;
    end if;
    perform set_config('lock_timeout', '200ms', true);
    loop
        begin
            select greatest(catalogue_commit_lock.lease_ms, accounts_commit_lock.lease_ms)
              into strict former
              from catalogue_commit_lock, accounts_commit_lock
               for update;
            lock table lease_lock in row exclusive mode;
            exit;
        exception when lock_not_available or deadlock_detected then
            perform pg_sleep(0.1);
        end;
    end loop;
    perform pg_sleep(former / 1000.0);
    update catalogue_commit_lock set lease_ms = duration_ms;
    update accounts_commit_lock set lease_ms = duration_ms;
    return former;
end
$$;

revoke execute on function
    wait_for_leases(integer), read_versions_leased(integer), surrender_leases(bigint, bigint, uuid),
    set_lease_duration(integer)
    from public;

-- The serving roles are those that may prune the log.
do $$
declare
    serving_role text;
begin
    for serving_role in
        select distinct acl.grantee::regrole::text
          from pg_proc, aclexplode(proacl) acl
         where pg_proc.oid = 'prune_accounts_versions()'::regprocedure
           and acl.grantee not in (0, proowner)
    loop
        execute format('grant execute on function read_versions_leased(integer) to %s', serving_role);
        execute format('grant execute on function surrender_leases(bigint, bigint, uuid) to %s', serving_role);
    end loop;
end
$$;

insert into schema_compatibility (migration, oldest_schema, program) values (13, 5, '0.1.0');
