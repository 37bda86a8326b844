-- Functions that run with the owner's rights. Triggers call them for everybody; hung on a table of their own, or called by hand,
-- they would let the role that serves move versions and sequences, which it may not.
revoke execute on function
    bump_version(), move_version(), number_revocation(), end_tokens(), announce_changed_users(), announce_all_users(),
    announce_replicated_user(), draw_above()
    from public;

-- By its full name and for the very type that it is given: where others may make functions in this schema, as in databases that
-- were made before PostgreSQL 15, one called `lower` would have been run with the owner's rights.
create or replace function credentials_of(
    name                 text,
    out id               bigint,
    out password         text,
    out is_active        boolean,
    out token_generation integer
) returns setof record
    language sql stable security definer
    set search_path = public, pg_temp
as $$
    select id, password, is_active, token_generation
      from users
     where pg_catalog.lower(username::text) = pg_catalog.lower(name)
$$;
