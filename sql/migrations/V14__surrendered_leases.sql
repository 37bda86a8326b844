-- Surrendered leases: an instance that serves a write gives its lease up before, so that the write need not wait for it.
-- With one instance, no write waits.
--
-- `read_versions_leased` also returns the number of the ticket. An instance that knows all tickets since the last one
-- that has expired, and uses none of their leases any more, calls `surrender_leases` with them.

-- PostgreSQL may draw the same numbers again after a crash, which it tells by emptying an unlogged table, as it does when
-- it promotes a standby. The leased read that finds it empty inserts another epoch.
create unlogged table lease_epoch (
    epoch uuid not null default gen_random_uuid()
);

-- The result has two more columns. `create or replace` cannot add them.
drop function read_versions_leased(integer);

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

revoke execute on function read_versions_leased(integer), surrender_leases(bigint, bigint, uuid) from public;

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

insert into schema_compatibility (migration, oldest_schema, program) values (14, 5, '0.1.0');
