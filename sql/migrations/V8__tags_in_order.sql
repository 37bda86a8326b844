-- The products of a tag in the order of their ids, out of the index alone: a page of a tag begins where the last one ended,
-- and a filter by tag and something else joins two indexes where it asked for each product by itself. The first column
-- still serves what the foreign key asks.
create index product_tags_tag_id_product_id_idx on product_tags (tag_id, product_id);
drop index product_tags_tag_id_idx;
