-- "Without regard to case" means the same in every database. `lower` follows the locale of the database: in locale C it
-- leaves non-ASCII letters as they are, in Turkish it maps I to a dotless i, so that "iris" and "IRIS" were different
-- accounts. `fold_case` uses a collation that is independent of the database.
do $$
declare
    collation_name text;
begin
    -- in this order: the mapping of Unicode by ICU, by PostgreSQL 17 and later itself, by the C library
    select quote_ident(collname)
      into collation_name
      from pg_collation
     where collnamespace = 'pg_catalog'::regnamespace
       and collencoding in (-1, (select encoding from pg_database where datname = current_database()))
       and collname in ('und-x-icu', 'pg_c_utf8', 'C.utf8', 'C.UTF-8')
       and (select pg_encoding_to_char(encoding) from pg_database where datname = current_database()) = 'UTF8'
     order by array_position(array['und-x-icu', 'pg_c_utf8', 'C.utf8', 'C.UTF-8'], collname::text)
     limit 1;
    if collation_name is null then
        raise exception 'the database has no locale-independent mapping of upper and lower case'
            using hint = 'Use the encoding UTF8, and PostgreSQL 17 or later, or a server that is built with ICU.';
    end if;
    -- Both small sigmas are equal; so are the dotted capital I of Turkish and i, which mappings treat differently.
    execute format(
        'create function fold_case(value text) returns text
             language sql immutable strict parallel safe
             return pg_catalog.lower(pg_catalog.translate(value, %L, %L) collate pg_catalog.%s)',
        'Σςİ', 'σσi', collation_name);
end
$$;

-- Accounts that would be equal now stop the migration: only their owner can say which of them stays.
do $$
declare
    collisions text;
begin
    select string_agg(names, '; ')
      into collisions
      from (
           select format('usernames %s', string_agg(format('%s (id %s)', username, id), ', ' order by id)) as names
             from users
            group by fold_case(username)
           having count(*) > 1
            union all
           select format('emails %s', string_agg(format('%s (id %s)', email, id), ', ' order by id))
             from users
            group by fold_case(email)
           having count(*) > 1
            limit 20
           ) collided;
    if collisions is not null then
        raise exception 'accounts differ only in the case of letters: %', collisions
            using hint = 'Rename or delete all but one of each group, then migrate again.';
    end if;
end
$$;

-- The new indexes have the names by which programs recognise a conflict. The previous release compares by `lower`.
drop index users_username_key, users_email_key;
create unique index users_username_key on users (fold_case(username));
create unique index users_email_key on users (fold_case(email));
create index users_username_lower_idx on users (lower(username));
create index users_email_lower_idx on users (lower(email));

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
     where public.fold_case(username::text) = public.fold_case(name)
$$;

-- The previous release searches with products_text_idx, on `lower`; a later one drops it.
create index products_search_idx on products using gin (fold_case(name || E'\n' || description) gin_trgm_ops);

insert into schema_compatibility (migration, oldest_schema, program) values (7, 5, '0.1.0');
