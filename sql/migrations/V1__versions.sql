-- Versions make cached responses provably fresh: one row per subject, updated in the writer's own transaction.
-- A rolled-back write changes no version, a committed write always does, and a write from psql counts like any other.
-- A sequence would not do: its value is visible before the commit. The token keeps a version unique when the database
-- is restored from a backup or fails over and the same numbers are assigned again.
create table versions (
    name           text        primary key,
    version        bigint      not null default 0,
    token          uuid        not null default gen_random_uuid(),
    changed_at     timestamptz not null default now(),
    -- expired revocations up to this version have been deleted (used by the subject 'accounts' only)
    pruned_through bigint      not null default 0
) with (fillfactor = 10); -- leaves free space, so that every update stays on the same page

insert into versions (name) values ('catalogue'), ('accounts');

-- A version changes when its transaction commits, not when the transaction writes: the row lock, which blocks every
-- other writer of the catalogue, is then held during the commit only. A bulk load or a psql session with an open
-- transaction blocks no other writer. The update is still part of the writer's transaction and fails with it.
--
-- A writer at repeatable read or above fails at its commit when another writer committed in the meantime. To avoid
-- that, it can first run `select from versions where name = 'catalogue' for update`, which makes other writers wait.

-- The subjects that a running transaction has written to; no other transaction sees its rows. The table is unlogged: a
-- crash that loses rows also aborts their transactions.
create unlogged table pending_version_bumps (
    transaction xid8 not null,
    name        text not null,
    primary key (transaction, name)
);

-- Records, once per transaction, that the subject in the trigger's first argument has changed.
-- `security definer`: programs that may write products need no privilege on this table.
create function bump_version() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    insert into pending_version_bumps (transaction, name)
    values (pg_current_xact_id(), tg_argv[0])
        on conflict do nothing;
    return null;
end
$$;

-- Runs at the commit and updates the version of each recorded subject.
create function apply_version_bump() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    delete from pending_version_bumps
     where transaction = new.transaction
       and name = new.name;
    update versions
       set version = version + 1, token = gen_random_uuid(), changed_at = clock_timestamp()
     where name = new.name;
    if not found then
        raise exception 'the row % of table versions is missing: lists would go stale', new.name;
    end if;
    return null;
end
$$;
create constraint trigger apply_version_bump after insert on pending_version_bumps
    deferrable initially deferred
    for each row execute function apply_version_bump();
-- also for rows that arrive by logical replication
alter table pending_version_bumps enable always trigger apply_version_bump;

-- These functions run with the owner's privileges. Triggers call them for every user; attached to another table or
-- called directly, they would let the serving role change versions, which it must not.
revoke execute on function bump_version(), apply_version_bump() from public;
