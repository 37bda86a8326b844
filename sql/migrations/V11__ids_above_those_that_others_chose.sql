-- Ids draw themselves, but whoever moves a table over, or writes with `psql`, may choose them. Then the next ids are drawn above
-- those, whoever chose them: otherwise each creation would fail once for every id that it meets.

-- `ids` is the sequence that the trigger names in its first argument.
create function draw_above() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    ids    constant regclass := tg_argv[0]::regclass;
    chosen bigint;
begin
    -- far more than are ever drawn; above it hardly anything could be drawn that the numbers of JSON hold (2^53)
    select max(id) into chosen from added where id < 4503599627370496;
    if chosen > coalesce(pg_sequence_last_value(ids), 0) then
        -- two who choose at once would set it back
        perform pg_advisory_xact_lock(ids::oid::bigint);
        perform setval(ids, greatest(chosen, coalesce(pg_sequence_last_value(ids), 0)));
    end if;
    return null;
end
$$;

create trigger draw_above after insert on users
    referencing new table as added
    for each statement execute function draw_above('users_id_seq');
create trigger draw_above after insert on categories
    referencing new table as added
    for each statement execute function draw_above('categories_id_seq');
create trigger draw_above after insert on tags
    referencing new table as added
    for each statement execute function draw_above('tags_id_seq');
create trigger draw_above after insert on products
    referencing new table as added
    for each statement execute function draw_above('products_id_seq');

-- for what is there already
select setval('users_id_seq', max(id)) from users having max(id) > coalesce(pg_sequence_last_value('users_id_seq'), 0);
select setval('categories_id_seq', max(id)) from categories having max(id) > coalesce(pg_sequence_last_value('categories_id_seq'), 0);
select setval('tags_id_seq', max(id)) from tags having max(id) > coalesce(pg_sequence_last_value('tags_id_seq'), 0);
select setval('products_id_seq', max(id)) from products having max(id) > coalesce(pg_sequence_last_value('products_id_seq'), 0);
