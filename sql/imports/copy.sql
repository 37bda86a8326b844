-- Copies rows, in file order, into the table that sql/imports/stage.sql creates.
copy staged (id, category_id, name, description, price, created_at, tags) from stdin binary
