-- What the role that serves may do, and no more: it reads and writes rows, and changes no schema. `testshop migrate` runs
-- this after the migrations; the setting testshop.serving_role names the role. Rights that it had before are taken back.
do $$
declare
    serving constant text := current_setting('testshop.serving_role');
    rights  text;
begin
    foreach rights in array array[
        'revoke all on categories, tags, products, product_tags, users, sessions, revocations, versions from %I',
        'revoke all on idempotency_keys, version_moves from %I',
        'revoke all on refinery_schema_history from %I',
        'revoke all on sequence products_id_seq from %I',
        'revoke all on function credentials_of(text), password_of(bigint) from %I',
        'revoke create on schema public from %I, public',
        'grant usage on schema public to %I',
        'grant select, insert, update, delete on categories, tags, products, product_tags, sessions to %I',
        'grant select, insert, update, delete on idempotency_keys to %I',
        -- ids that `seed` takes in one piece
        'grant usage, update on sequence products_id_seq to %I',
        -- not the passwords: these come one at a time, by function
        'grant select (id, username, email, is_staff, is_active, date_joined, token_generation) on users to %I',
        'grant insert (username, email, password, is_staff), update (password, is_active, token_generation) on users to %I',
        'grant execute on function credentials_of(text), password_of(bigint) to %I',
        'grant select, insert, delete on revocations to %I',
        -- versions are moved by triggers alone
        'grant select, update (pruned_through) on versions to %I',
        -- `check` tells whether the schema is up to date
        'grant select on refinery_schema_history to %I'
    ] loop
        execute format(rights, serving);
    end loop;
    -- an import gathers its rows in a temporary table; who does not own the database leaves it to whoever does
    begin
        execute format('grant temporary on database %I to %I', current_database(), serving);
    exception when insufficient_privilege then
        raise notice 'the right to temporary tables is for the owner of the database to give';
    end;
end
$$
