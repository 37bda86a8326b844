-- rows into the table that sql/imports/stage.sql makes, in their order
copy staged (id, category_id, name, description, price, created_at, tags) from stdin binary
