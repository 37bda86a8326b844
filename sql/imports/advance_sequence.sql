-- Advances the sequence of product ids past the ids of the staged new products, before they are inserted: otherwise it
-- could generate one of them meanwhile. Like the trigger advance_sequence, it takes the lock without which concurrent
-- calls could set the sequence back.
with highest as materialized (
    select max(id) as id
      from staged
     where is_new
), locked as materialized (
    select id, pg_advisory_xact_lock('products_id_seq'::regclass::oid::bigint)
      from highest
)
select setval('products_id_seq', greatest(id, coalesce(pg_sequence_last_value('products_id_seq'), 0)))
  from locked
 where id > coalesce(pg_sequence_last_value('products_id_seq'), 0)
