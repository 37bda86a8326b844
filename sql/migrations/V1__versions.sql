-- What makes a cached answer provably fresh: one row per subject, moved inside the writer's own transaction.
-- A rolled-back write moves nothing, a committed one cannot fail to, and a write by psql counts like any other.
-- Not a sequence: its value would be visible before the commit. The token makes a version unrepeatable when
-- the database is restored from a backup or fails over and the numbers are dealt a second time.
create table versions (
    name           text        primary key,
    version        bigint      not null default 0,
    token          uuid        not null default gen_random_uuid(),
    changed_at     timestamptz not null default now(),
    -- revocations up to this version were deleted because they had expired (used by the subject 'accounts' only)
    pruned_through bigint      not null default 0
) with (fillfactor = 10); -- one page, updated in place for ever

insert into versions (name) values ('catalogue'), ('accounts');

-- Moves the subject that the trigger names in its first argument.
-- `security definer`: a program that may write products need not be able to write this table.
create function bump_version() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    update versions
       set version = version + 1, token = gen_random_uuid(), changed_at = clock_timestamp()
     where name = tg_argv[0];
    if not found then
        raise exception 'the row % of table versions is missing: lists would go stale', tg_argv[0];
    end if;
    return null;
end
$$;
