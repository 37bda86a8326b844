-- Creates the temporary table of what an import has read, dropped at commit. A row is either a product, with the digest
-- of what the import compares (null if it does not exist), or a category name with its id (null if there is none).
create temporary table reads (
    product_id    bigint,
    digest        bigint,
    category_name text,
    category_id   bigint
) on commit drop
