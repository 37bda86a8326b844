-- What serves every filter, ordering and search of the list: each index ends with the id, so that a page begins where the
-- last one ended, at any depth. Names are ordered by their bytes: the same on every machine, whatever its locale.
create extension if not exists pg_trgm;

create index products_price_idx on products (price, id);
create index products_name_idx on products (name collate "C", id);
create index products_created_at_idx on products (created_at, id);

-- The same within a category, which is what shops are asked for most. The first also answers what the foreign key asks.
create index products_category_id_id_idx on products (category_id, id);
create index products_category_id_price_idx on products (category_id, price, id);
create index products_category_id_name_idx on products (category_id, name collate "C", id);
create index products_category_id_created_at_idx on products (category_id, created_at, id);
drop index products_category_id_idx;

-- A search asks whether a word occurs anywhere, in any script: that is what trigrams are for. Full text would find whole
-- words only, of languages that it knows. One expression for both columns: no word has a line feed in it.
create index products_text_idx on products using gin (lower(name || E'\n' || description) gin_trgm_ops);
