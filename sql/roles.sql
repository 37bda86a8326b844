-- Privileges of the serving role: it reads and writes rows and cannot change the schema. `testshop migrate` runs this
-- script after the migrations; the setting testshop.serving_role names the role. Privileges granted earlier are
-- revoked.
do $$
declare
    serving_role constant text := current_setting('testshop.serving_role');
    statement    text;
begin
    foreach statement in array array[
        'revoke all on categories, tags, products, product_tags, users, sessions, revocations, versions from %I',
        'revoke all on catalogue_versions, catalogue_changes, catalogue_commit_lock from %I',
        'revoke all on accounts_versions, accounts_commit_lock, pruned_revocations from %I',
        'revoke all on idempotency_keys, pending_version_bumps, pending_revocations, token_generation_floor from %I',
        'revoke all on refinery_schema_history, schema_compatibility from %I',
        'revoke all on sequence products_id_seq from %I',
        'revoke all on function credentials_of(text), password_of(bigint) from %I',
        'revoke all on trusted_addresses from %I',
        'revoke all on function max_password_iterations() from %I',
        'revoke all on function prune_catalogue_versions(), prune_accounts_versions() from %I',
        'revoke all on lease_lock, lease_wait_marker, lease_epoch, lease_tickets, expired_lease_tickets from %I',
        'revoke all on function read_versions_leased(integer), wait_for_leases(integer), set_lease_duration(integer) from %I',
        'revoke all on function surrender_leases(bigint, bigint, uuid) from %I',
        'revoke create on schema public from %I, public',
        'grant usage on schema public to %I',
        'grant select, insert, update, delete on categories, tags, products, product_tags, sessions to %I',
        'grant select, insert, update, delete on idempotency_keys to %I',
        -- `seed` reserves a range of ids
        'grant usage, update on sequence products_id_seq to %I',
        -- without the column password, which the role reads through functions, one account per call
        'grant select (id, username, email, is_staff, is_active, date_joined, token_generation) on users to %I',
        'grant insert (username, email, password, is_staff) on users to %I',
        'grant update (password, is_active, token_generation) on users to %I',
        'grant execute on function credentials_of(text), password_of(bigint) to %I',
        'grant select, update on token_generation_floor to %I',
        -- the cost of a login
        'grant execute on function max_password_iterations() to %I',
        'grant select, insert, update, delete on trusted_addresses to %I',
        'grant select, insert, delete on revocations to %I',
        -- only triggers change versions
        'grant select on catalogue_versions, catalogue_changes, accounts_versions to %I',
        'grant execute on function prune_catalogue_versions(), prune_accounts_versions() to %I',
        'grant execute on function read_versions_leased(integer), surrender_leases(bigint, bigint, uuid) to %I',
        'grant select, update (pruned_through) on pruned_revocations to %I',
        -- for the program of the release before
        'grant select, update (pruned_through) on versions to %I',
        -- `serve`, `check` and `/readyz` compare the schema with the program
        'grant select on refinery_schema_history, schema_compatibility to %I'
    ] loop
        execute format(statement, serving_role);
    end loop;
    -- An import stages its rows in a temporary table. Only the owner of the database can grant this privilege.
    begin
        execute format('grant temporary on database %I to %I', current_database(), serving_role);
    exception when insufficient_privilege then
        raise notice 'only the owner of the database can grant the privilege to create temporary tables';
    end;
end
$$
