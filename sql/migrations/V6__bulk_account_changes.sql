-- A statement that changes many accounts, such as the one that ends all sessions after a breach, takes time in
-- proportion to their number and blocks no other transaction until its commit.
--
-- Before, each revocation took its number from `versions` by an update of the same row: n revocations in a transaction
-- walked through n dead versions of that row each, and held its lock, for which every logout waits, until the end of
-- the transaction. Now revocations are collected per transaction and numbered in one step at its commit, as the version
-- of the catalogue is. A transaction that concerns more than 1,000 accounts revokes the cached state of all accounts.

-- The revocations of running transactions; no other transaction sees its rows. The table is unlogged: a crash that
-- loses rows also aborts their transactions.
create unlogged table pending_revocations (
    transaction xid8        not null,
    token_id    text,
    user_id     bigint,
    expires_at  timestamptz not null default now() + interval '1 day'
);
create index pending_revocations_transaction_idx on pending_revocations (transaction);

-- The token of the version that a revocation belongs to. A reader that has read up to a version finds the row with its
-- number and its token; otherwise the database has been restored or has failed over to another history. Null in rows
-- from before this migration.
alter table revocations add column version_token uuid;
-- instances look a token up when they see it for the first time
create index revocations_token_id_idx on revocations (token_id);

-- Collects a revocation in place of inserting it.
create function defer_revocation() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    insert into pending_revocations (transaction, token_id, user_id, expires_at)
    values (pg_current_xact_id(), new.token_id, new.user_id, new.expires_at);
    insert into pending_version_bumps (transaction, name)
    values (pg_current_xact_id(), 'accounts')
        on conflict do nothing;
    return null;
end
$$;

-- Runs at the commit: numbers the collected revocations of a transaction and inserts them.
create function apply_pending_revocations(committing xid8) returns void
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    max_accounts constant integer := 1000;
    step         constant uuid := gen_random_uuid();
    accounts     bigint;
    tokens       bigint;
    newest       bigint;
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
    -- locks the row until the commit, so that the numbers are in the order of the commits
    update versions
       set version = version + accounts + tokens, token = step, changed_at = clock_timestamp()
     where name = 'accounts'
    returning version into strict newest;
    with moved as (
        delete from pending_revocations
         where transaction = committing
        returning token_id, user_id, expires_at
    )
    insert into revocations (seq, token_id, user_id, expires_at, version_token)
    select newest - row_number() over () + 1, token_id, user_id, expires_at, step
      from moved;
end
$$;

drop trigger assign_revocation_seq on revocations;
drop function assign_revocation_seq();
-- the rows that `apply_pending_revocations` inserts pass
create trigger defer_revocation before insert on revocations
    for each row when (pg_trigger_depth() = 0 or new.version_token is null) execute function defer_revocation();
alter table revocations enable always trigger defer_revocation;

create or replace function apply_version_bump() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    delete from pending_version_bumps
     where transaction = new.transaction
       and name = new.name;
    if new.name = 'accounts' then
        perform apply_pending_revocations(new.transaction);
        return null;
    end if;
    update versions
       set version = version + 1, token = gen_random_uuid(), changed_at = clock_timestamp()
     where name = new.name;
    if not found then
        raise exception 'the row % of table versions is missing: lists would go stale', new.name;
    end if;
    return null;
end
$$;

-- Collects a revocation for every user whose privileges or tokens changed, or who was deleted. 1,001 of them are as
-- good as all.
create or replace function record_user_revocations() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    insert into pending_revocations (transaction, user_id)
    select pg_current_xact_id(), changed.id
      from changed
      left join users u on u.id = changed.id
     where (u.is_active, u.is_staff, u.token_generation)
           is distinct from (changed.is_active, changed.is_staff, changed.token_generation)
     limit 1001;
    if found then
        insert into pending_version_bumps (transaction, name)
        values (pg_current_xact_id(), 'accounts')
            on conflict do nothing;
    end if;
    return null;
end
$$;

create or replace function record_all_users_revocation() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    insert into pending_revocations (transaction) values (pg_current_xact_id());
    insert into pending_version_bumps (transaction, name)
    values (pg_current_xact_id(), 'accounts')
        on conflict do nothing;
    return null;
end
$$;

-- Rows that arrive by logical replication.
create or replace function record_replicated_user_revocation() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    insert into pending_revocations (transaction, user_id) values (pg_current_xact_id(), old.id);
    insert into pending_version_bumps (transaction, name)
    values (pg_current_xact_id(), 'accounts')
        on conflict do nothing;
    return null;
end
$$;

-- After a restored backup or a fail-over, ids and token generations are assigned again, and a token from the lost history
-- must not fit an account of the restored one. `end-sessions` therefore sets generations by the clock, which is ahead
-- of every generation that increments have reached, also for the accounts that are created afterwards.
create table token_generation_floor (
    only_row   boolean primary key default true check (only_row),
    generation integer not null default 0
);
insert into token_generation_floor default values;

-- The clock in steps of ten seconds since 2026: 32 bits last for 680 years.
create function token_generation_now() returns integer
    language sql stable
    return ((extract(epoch from clock_timestamp()) - 1767225600) / 10)::integer;

create function first_token_generation() returns integer
    language sql stable security definer
    set search_path = public, pg_temp
as $$
    select generation from token_generation_floor
$$;
alter table users alter column token_generation set default first_token_generation();

revoke execute on function defer_revocation(), apply_pending_revocations(xid8) from public;

insert into schema_compatibility (migration, oldest_schema, program) values (6, 5, '0.1.0');
