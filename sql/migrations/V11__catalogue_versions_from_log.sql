-- Switches the versions of the catalogue from the row in `versions` to the log. `versions` becomes a view, so that the
-- program before this migration goes on working.

-- Locks the tables without making requests wait for longer than a moment: a snapshot of the list, which has read the
-- version and then reads the products, and a commit, which does the reverse, let an attempt fail, not a request. A
-- transaction with pending rows ends before: its commit runs the present functions, which update `versions`. All
-- timeouts together are shorter than a second, after which PostgreSQL would find a deadlock and end a request, not the
-- attempt.
do $$
begin
    perform set_config('lock_timeout', '100ms', true);
    loop
        begin
            lock table pending_version_bumps, pending_revocations in share mode;
            lock table categories, tags, products, product_tags, versions in access exclusive mode;
            exit;
        exception when lock_not_available or deadlock_detected then
            perform pg_sleep(0.1);
        end;
    end loop;
    perform set_config('lock_timeout', '0', true);
end
$$;

-- the log continues with the present version, so what is cached stays valid
insert into catalogue_versions (version, token, transaction, changed_at)
select version, token, pg_current_xact_id(), changed_at
  from versions
 where name = 'catalogue';
do $$
begin
    perform setval(pg_get_serial_sequence('catalogue_versions', 'version'), max(version) + 1, false)
       from catalogue_versions;
end
$$;

-- The version of the accounts, in one row as before. The previous release also uses `pruned_through`.
alter table versions rename to accounts_version;
delete from accounts_version where name = 'catalogue';
create view versions as
select 'catalogue'::text as name, version, token, changed_at, 0::bigint as pruned_through
  from (select version, token, changed_at from catalogue_versions order by version desc limit 1) newest
 union all
select name, version, token, changed_at, pruned_through
  from accounts_version;

create function update_pruned_through() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    update accounts_version set pruned_through = new.pruned_through where name = new.name;
    return new;
end
$$;
create trigger update_pruned_through instead of update on versions
    for each row execute function update_pruned_through();

create or replace function apply_pending_revocations(committing xid8) returns void
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
    update accounts_version
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

-- only the accounts have pending versions now
create or replace function apply_version_bump() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    delete from pending_version_bumps
     where transaction = new.transaction
       and name = new.name;
    perform apply_pending_revocations(new.transaction);
    return null;
end
$$;

-- The triggers of the four tables: those of statements, and those that fire for replicated rows.
do $$
declare
    changed_table  text;
    log_rows       text;
    log_updates    text;
    log_replicated text;
begin
    foreach changed_table in array array['categories', 'tags', 'products', 'product_tags'] loop
        log_rows := format('log_rows(%L)', changed_table);
        log_updates := format('log_updated_names(%L)', changed_table);
        log_replicated := format('log_replicated_row(%L, %L)', changed_table, '{id,name}');
        if changed_table = 'products' then
            log_updates := 'log_updated_products()';
            log_replicated := format('log_replicated_row(%L, %L)', changed_table,
                                     '{id,category_id,name,description,price,created_at}');
        elsif changed_table = 'product_tags' then
            log_rows := 'log_links()';
            log_updates := 'log_updated_links()';
            log_replicated := format('log_replicated_link(%L)', '{product_id,tag_id}');
        end if;
        execute format($sql$
            drop trigger bump_version on %1$I;
            drop trigger bump_version_replica on %1$I;
            drop trigger bump_version_truncated on %1$I;
            create trigger log_insert after insert on %1$I referencing new table as changed
                for each statement execute function %2$s;
            create trigger log_update after update on %1$I referencing old table as before new table as after
                for each statement execute function %3$s;
            create trigger log_delete after delete on %1$I referencing old table as changed
                for each statement execute function %2$s;
            create trigger log_truncate after truncate on %1$I
                for each statement execute function log_truncated_table();
            create trigger log_replicated_rows after insert or update or delete on %1$I
                for each row execute function %4$s;
            create trigger log_replicated_truncate after truncate on %1$I
                for each statement execute function log_truncated_table();
            alter table %1$I
                enable replica trigger log_replicated_rows,
                enable replica trigger log_replicated_truncate
            $sql$,
            changed_table, log_rows, log_updates, log_replicated);
    end loop;
end
$$;
drop function bump_version();

-- Deletes old versions with their changes: those older than an hour beyond the newest 10,000, and all beyond the newest
-- 100,000. Returns the number of deleted versions, at most 10,000 per call. The serving role calls this, because it may
-- not delete from the log itself.
--
-- Only the oldest versions are deleted, whatever the clock did, so a reader that finds a version in the log finds the
-- changes of all later ones. When a dump is restored into another server, ids of transactions repeat: changes are kept
-- while any version has their transaction.
create function prune_catalogue_versions() returns bigint
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    first_kept  bigint;
    last_pruned bigint;
    pruned      bigint;
begin
    -- two instances at a time would wait for each other, in any order
    if not pg_try_advisory_xact_lock(1953720691, 2) then
        return 0;
    end if;
    select version
      into first_kept
      from catalogue_versions
     where version >= coalesce((select version from catalogue_versions order by version desc limit 1 offset 99999), 0)
       and (changed_at > now() - interval '1 hour'
            or version >= coalesce((select version from catalogue_versions order by version desc limit 1 offset 9999),
                                   0))
     order by version
     limit 1;
    select max(version)
      into last_pruned
      from (select version from catalogue_versions where version < first_kept order by version limit 10000) oldest;
    with old_versions as (
        delete from catalogue_versions
         where version <= last_pruned
        returning transaction
    ), old_changes as (
        delete from catalogue_changes
         where transaction in (select transaction from old_versions)
           and not exists (select
                             from catalogue_versions kept
                            where kept.transaction = catalogue_changes.transaction
                              and kept.version > last_pruned)
    )
    select count(*) into pruned from old_versions;
    return pruned;
end
$$;

revoke execute on function update_pruned_through(), prune_catalogue_versions() from public;

-- Roles that may read the versions may do so without interruption, before `migrate` grants what the program needs.
do $$
declare
    reader text;
begin
    for reader in
        select distinct acl.grantee::regrole::text
          from pg_class, aclexplode(relacl) acl
         where pg_class.oid = 'accounts_version'::regclass
           and acl.privilege_type = 'SELECT'
           and acl.grantee not in (0, relowner)
    loop
        execute format('grant select, update (pruned_through) on versions to %s', reader);
        execute format('grant select on catalogue_versions, catalogue_changes to %s', reader);
        execute format('grant execute on function prune_catalogue_versions() to %s', reader);
    end loop;
end
$$;

insert into schema_compatibility (migration, oldest_schema, program) values (11, 5, '0.1.0');
