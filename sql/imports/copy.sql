-- Copies rows, in file order, into the table that sql/imports/stage.sql creates.
copy staged (id, is_new, category_id, new_category, name, description, price, created_at, tags) from stdin binary
