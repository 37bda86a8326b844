-- The versions of the accounts become a log, for the reasons that V10 names: a row that every logout updates slows all
-- of them down beside a long snapshot, and a writer at repeatable read fails because another one has committed.

-- One row per committed transaction that revoked something; the newest row is the current version. Its number is that
-- of the last revocation of the transaction.
create table accounts_versions (
    version    bigint      primary key,
    token      uuid        not null,
    changed_at timestamptz not null default clock_timestamp()
);
create sequence accounts_versions_version_seq owned by accounts_versions.version;

-- The lock of the commit, as catalogue_commit_lock: held until the revocations are visible.
create table accounts_commit_lock (
    only_row boolean primary key default true check (only_row)
);
insert into accounts_commit_lock default values;

-- As V11 does. `versions` is a view, and is locked with its tables.
do $$
begin
    perform set_config('lock_timeout', '100ms', true);
    loop
        begin
            lock table pending_version_bumps, pending_revocations in share mode;
            lock table users, revocations, versions in access exclusive mode;
            exit;
        exception when lock_not_available or deadlock_detected then
            perform pg_sleep(0.1);
        end;
    end loop;
    perform set_config('lock_timeout', '0', true);
end
$$;

-- the log continues with the present version, so no instance drops the tokens that it has verified
insert into accounts_versions (version, token, changed_at)
select version, token, changed_at
  from accounts_version;
do $$
begin
    perform setval('accounts_versions_version_seq', max(version) + 1, false)
       from accounts_versions;
end
$$;

-- What the previous release reads besides: expired revocations up to this number have been deleted.
alter table accounts_version rename to pruned_revocations;
create or replace view versions as
select 'catalogue'::text as name, version, token, changed_at, 0::bigint as pruned_through
  from (select version, token, changed_at from catalogue_versions order by version desc limit 1) newest
 union all
select 'accounts', newest.version, newest.token, newest.changed_at, pruned_through
  from (select version, token, changed_at from accounts_versions order by version desc limit 1) newest,
       pruned_revocations;
create or replace function update_pruned_through() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    update pruned_revocations set pruned_through = new.pruned_through where new.name = 'accounts';
    return new;
end
$$;
alter table pruned_revocations
    drop column name,
    drop column version,
    drop column token,
    drop column changed_at;

create or replace function apply_pending_revocations(committing xid8) returns void
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    max_accounts constant integer := 1000;
    step         constant uuid := gen_random_uuid();
    accounts     bigint;
    tokens       bigint;
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
    perform from accounts_commit_lock for update;
    if not found then
        raise exception 'the row of table accounts_commit_lock is missing: revoked tokens would stay valid';
    end if;
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
    insert into accounts_versions (version, token)
    select max(seq), step
      from numbered;
end
$$;

-- Deletes the versions of the accounts that are older than an hour, except for the newest, and all beyond the newest
-- 100,000. Returns the number of deleted versions, at most 10,000 per call. The serving role calls this, because it may
-- not delete from the log itself.
--
-- Every revocation lasts longer than that, so a reader that finds a version in the log finds all later revocations. If
-- the clock was set back, the log keeps more.
create function prune_accounts_versions() returns bigint
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    pruned bigint;
begin
    -- two instances at a time would wait for each other, in any order
    if not pg_try_advisory_xact_lock(1953720691, 3) then
        return 0;
    end if;
    with newest as (
        select max(version) as version from accounts_versions
    ), oldest as (
        select version, changed_at
          from accounts_versions
         order by version
         limit 10000
    ), old_versions as (
        delete from accounts_versions
         using newest
         where accounts_versions.version in (
                   select oldest.version
                     from oldest
                    where oldest.changed_at < now() - interval '1 hour'
                       or oldest.version < (select version
                                              from accounts_versions
                                             order by version desc
                                            offset 99999
                                             limit 1))
           and accounts_versions.version < newest.version
        returning accounts_versions.version
    )
    select count(*) into pruned from old_versions;
    return pruned;
end
$$;

revoke execute on function prune_accounts_versions() from public;

-- Roles that may read the versions may do so without interruption, before `migrate` grants what the program needs.
do $$
declare
    reader text;
begin
    for reader in
        select distinct acl.grantee::regrole::text
          from pg_class, aclexplode(relacl) acl
         where pg_class.oid = 'pruned_revocations'::regclass
           and acl.privilege_type = 'SELECT'
           and acl.grantee not in (0, relowner)
    loop
        execute format('grant select on accounts_versions to %s', reader);
        execute format('grant execute on function prune_accounts_versions() to %s', reader);
    end loop;
end
$$;

insert into schema_compatibility (migration, oldest_schema, program) values (12, 5, '0.1.0');
