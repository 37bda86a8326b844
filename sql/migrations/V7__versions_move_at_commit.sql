-- A version is moved when its transaction commits, and not when it writes: the row's lock, for which every other writer of
-- the catalogue waits, is then held for the commit alone. A bulk load, or a session of psql that somebody left open, keeps
-- nobody waiting any more. It is as safe as before: the move is part of the writer's own transaction, and fails with it.
-- (A writer at repeatable read or above fails at its commit when another one committed meanwhile, as it failed at its first
-- write before; `select from versions where name = 'catalogue' for update` before all else makes the others wait.)

-- What a transaction has written to; empty for everybody else. It may be lost with a crash, as its transactions are.
create unlogged table version_moves (
    transaction xid8 not null,
    name        text not null,
    primary key (transaction, name)
);

-- Remembers, once a transaction, to move the subject that the trigger names in its first argument.
create or replace function bump_version() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    insert into version_moves (transaction, name)
    values (pg_current_xact_id(), tg_argv[0])
        on conflict do nothing;
    return null;
end
$$;

create function move_version() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    delete from version_moves
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
create constraint trigger move_version after insert on version_moves
    deferrable initially deferred
    for each row execute function move_version();
-- also for rows that arrive by logical replication
alter table version_moves enable always trigger move_version;
