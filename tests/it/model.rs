//! Compares the API with an in-memory model of the catalogue after each step of random histories. proptest shortens a
//! history that fails.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use crate::{
    harness::{TestApp, TestClient},
    stress::record_result,
};

/// A request. A number selects an existing row: see [`select`].
#[derive(Clone, Debug)]
enum Step {
    Create(ProductInput),
    Replace(usize, ProductInput),
    Update(usize, ProductPatch),
    Delete(usize),
    /// Renames the selected category, or creates one.
    NameCategory(Option<usize>, usize),
    DeleteCategory(usize),
    /// Renames the selected tag, or creates one.
    NameTag(Option<usize>, usize),
    DeleteTag(usize),
    Read(Query),
}

#[derive(Clone, Debug)]
struct ProductInput {
    name: String,
    description: String,
    cents: u64,
    category: usize,
    tags: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
struct ProductPatch {
    name: Option<String>,
    cents: Option<u64>,
    category: Option<usize>,
    tags: Option<BTreeSet<usize>>,
}

/// The parameters of a list.
#[derive(Clone, Debug)]
struct Query {
    /// Products to select; empty for all.
    ids: Vec<usize>,
    /// Indexes of [`FIELDS`]; empty for all.
    fields: BTreeSet<usize>,
    category: Option<usize>,
    tags: BTreeSet<usize>,
    price_min: Option<u64>,
    price_max: Option<u64>,
    search: Option<String>,
    /// An index of [`COLUMNS`], and whether the order is descending.
    ordering: Option<(usize, bool)>,
    page_size: Option<usize>,
}

/// Number of different category names, and of tag names.
const NAMES: usize = 5;
const FIELDS: [&str; 7] = ["id", "name", "description", "category_name", "price", "created_at", "tags"];
const COLUMNS: [&str; 3] = ["id", "name", "price"];
/// Steps of a history.
const STEPS: usize = 30;
const HISTORIES: u32 = 12;

fn category_name(number: usize) -> String {
    format!("Category {number}")
}

fn tag_name(number: usize) -> String {
    ["new", "eco", "Żółw", "Zebra", "a, \"b\""][number % NAMES].to_owned()
}

fn text() -> impl Strategy<Value = String> {
    // letters of one, two and four bytes, and characters with a meaning in SQL, JSON and LIKE
    "[a-cA-C%_'\"\\\\<é🦓]{1,6}( [a-c]{1,3})?"
}

fn cents() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, Just(999_999_999_999)]
}

fn tag_numbers() -> impl Strategy<Value = BTreeSet<usize>> {
    btree_set(0..NAMES, 0..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let input = || {
        (text(), prop_oneof![Just(String::new()), text()], cents(), any::<usize>(), tag_numbers()).prop_map(
            |(name, description, cents, category, tags)| ProductInput { name, description, cents, category, tags },
        )
    };
    let patch = (option::of(text()), option::of(cents()), option::of(any::<usize>()), option::of(tag_numbers()))
        .prop_map(|(name, cents, category, tags)| ProductPatch { name, cents, category, tags });
    let query =
        (
            prop_oneof![2 => Just(Vec::new()), 1 => vec(any::<usize>(), 1..5)],
            prop_oneof![2 => Just(BTreeSet::new()), 1 => btree_set(0..FIELDS.len(), 1..7)],
            option::of(0..NAMES),
            btree_set(0..NAMES, 0..2),
            option::of(cents()),
            option::of(cents()),
            option::of("[a-c%_é🦓]{1,2}"),
            option::of((0..COLUMNS.len(), any::<bool>())),
            option::of(1..4_usize),
        )
            .prop_map(|(ids, fields, category, tags, price_min, price_max, search, ordering, page_size)| {
                Query { ids, fields, category, tags, price_min, price_max, search, ordering, page_size }
            });
    let number = any::<usize>;
    let step = prop_oneof![
        6 => input().prop_map(Step::Create),
        2 => (number(), input()).prop_map(|(number, input)| Step::Replace(number, input)),
        3 => (number(), patch).prop_map(|(number, patch)| Step::Update(number, patch)),
        2 => number().prop_map(Step::Delete),
        2 => (option::of(number()), 0..NAMES).prop_map(|(number, name)| Step::NameCategory(number, name)),
        1 => number().prop_map(Step::DeleteCategory),
        2 => (option::of(number()), 0..NAMES).prop_map(|(number, name)| Step::NameTag(number, name)),
        1 => number().prop_map(Step::DeleteTag),
        4 => query.prop_map(Step::Read),
    ];
    vec(step, STEPS)
}

struct Product {
    name: String,
    description: String,
    cents: u64,
    category: i64,
    tags: BTreeSet<i64>,
    /// As returned by the creation.
    created_at: Value,
}

#[derive(Default)]
struct Model {
    categories: BTreeMap<i64, String>,
    tags: BTreeMap<i64, String>,
    products: BTreeMap<i64, Product>,
}

fn price(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Returns the key at index `number` modulo the number of keys, or `None` in an empty map.
fn select<T>(map: &BTreeMap<i64, T>, number: usize) -> Option<i64> {
    map.keys().nth(number.checked_rem(map.len())?).copied()
}

fn id_of(names: &BTreeMap<i64, String>, name: &str) -> Option<i64> {
    names.iter().find(|(_, existing)| *existing == name).map(|(id, _)| *id)
}

impl Model {
    /// Returns the JSON of a product.
    fn product(&self, id: i64) -> Value {
        let product = &self.products[&id];
        let mut tags: Vec<_> = product.tags.iter().map(|tag| &self.tags[tag]).collect();
        tags.sort();
        let price: Value = serde_json::from_str(&price(product.cents)).unwrap();
        json!({
            "id": id, "name": product.name, "description": product.description,
            "category_name": self.categories[&product.category], "price": price,
            "created_at": product.created_at, "tags": tags,
        })
    }

    /// Returns the JSON of a product with the fields of the query.
    fn selected_fields(&self, id: i64, query: &Query) -> Value {
        let mut product = self.product(id);
        if !query.fields.is_empty() {
            product.as_object_mut().unwrap().retain(|key, _| query.fields.iter().any(|field| FIELDS[*field] == key));
        }
        product
    }

    /// Returns the ids that the query names. The last of several names no product.
    fn requested_ids(&self, query: &Query) -> Vec<i64> {
        let of_product =
            |(index, number): (usize, &usize)| if index < 3 { select(&self.products, *number) } else { None };
        query.ids.iter().enumerate().map(|selected| of_product(selected).unwrap_or(i64::MAX)).collect()
    }

    fn list(&self) -> Value {
        self.products.keys().map(|id| self.product(*id)).collect()
    }

    /// Returns the ids of the products that match the query, in its order.
    fn matching_ids(&self, query: &Query) -> Vec<i64> {
        let matches = |product: &Product| {
            let tags: BTreeSet<_> = product.tags.iter().map(|tag| self.tags[tag].clone()).collect();
            let text = format!("{}\n{}", product.name, product.description).to_lowercase();
            query.category.is_none_or(|name| self.categories[&product.category] == category_name(name))
                && query.tags.iter().all(|name| tags.contains(&tag_name(*name)))
                && query.price_min.is_none_or(|min| product.cents >= min)
                && query.price_max.is_none_or(|max| product.cents <= max)
                && query.search.as_ref().is_none_or(|word| text.contains(&word.to_lowercase()))
        };
        let requested = self.requested_ids(query);
        let is_requested = |id: &i64| requested.is_empty() || requested.contains(id);
        let selected = self.products.iter().filter(|(id, product)| is_requested(id) && matches(product));
        let mut ids: Vec<_> = selected.map(|(id, _)| *id).collect();
        if let Some((column, descending)) = query.ordering {
            // the sort is stable: ties are ordered by ascending id
            ids.sort_by(|left_id, right_id| {
                let (left, right) = (&self.products[left_id], &self.products[right_id]);
                let order = match COLUMNS[column] {
                    "id" => left_id.cmp(right_id),
                    "name" => left.name.cmp(&right.name),
                    _ => left.cents.cmp(&right.cents),
                };
                if descending { order.reverse() } else { order }
            });
        }
        ids
    }

    /// Returns the ids of these tags, which exist in the database. Adds new ones to the model.
    async fn tag_ids(&mut self, staff: &TestClient, names: &BTreeSet<usize>) -> BTreeSet<i64> {
        if names.iter().any(|name| id_of(&self.tags, &tag_name(*name)).is_none()) {
            // the database has chosen the ids of new tags
            for tag in staff.get("/api/tags/").await.json().as_array().unwrap() {
                self.tags.insert(tag["id"].as_i64().unwrap(), tag["name"].as_str().unwrap().to_owned());
            }
        }
        names.iter().map(|name| id_of(&self.tags, &tag_name(*name)).expect("the tag exists")).collect()
    }
}

fn request_body(input: &ProductInput, category: i64) -> Value {
    let tags: Vec<_> = input.tags.iter().map(|tag| tag_name(*tag)).collect();
    json!({
        "name": input.name, "description": input.description, "price": price(input.cents),
        "category_id": category, "tags": tags,
    })
}

/// Renames the selected category or tag, or creates one. A name that exists must be rejected.
async fn set_name(
    staff: &TestClient,
    collection: &str,
    names: &mut BTreeMap<i64, String>,
    number: Option<usize>,
    name: String,
) {
    let existing = id_of(names, &name);
    let (response, id) = match number.and_then(|number| select(names, number)) {
        Some(id) => (staff.patch(&format!("{collection}{id}/"), json!({"name": name})).await, Some(id)),
        None => (staff.post(collection, json!({"name": name})).await, None),
    };
    if existing.is_some() && existing != id {
        assert_eq!(response.status, 400, "{}", response.text());
        return;
    }
    assert_eq!(response.status, if id.is_some() { 200 } else { 201 }, "{}", response.text());
    let id = id.unwrap_or_else(|| response.json()["id"].as_i64().unwrap());
    assert_eq!(response.json(), json!({"id": id, "name": name}));
    names.insert(id, name);
}

/// Sends the request of a step, checks the response, and applies the step to the model. Does nothing when a row that
/// the step needs does not exist.
async fn run_step(step: &Step, model: &mut Model, staff: &TestClient) {
    match step {
        Step::Create(input) => create(input, model, staff).await,
        Step::Replace(number, input) => replace(*number, input, model, staff).await,
        Step::Update(number, patch) => update(*number, patch, model, staff).await,
        Step::Delete(number) => {
            let Some(id) = select(&model.products, *number) else { return };
            let path = format!("/api/products/{id}/");
            assert_eq!(staff.delete(&path).await.status, 204);
            model.products.remove(&id);
            for method in [Method::GET, Method::DELETE] {
                assert_eq!(staff.send(method, &path, None).await.status, 404);
            }
        }
        Step::NameCategory(number, name) => {
            set_name(staff, "/api/categories/", &mut model.categories, *number, category_name(*name)).await;
        }
        Step::NameTag(number, name) => set_name(staff, "/api/tags/", &mut model.tags, *number, tag_name(*name)).await,
        Step::DeleteCategory(number) => {
            let Some(id) = select(&model.categories, *number) else { return };
            let in_use = model.products.values().any(|product| product.category == id);
            let response = staff.delete(&format!("/api/categories/{id}/")).await;
            assert_eq!(response.status, if in_use { 409 } else { 204 }, "{}", response.text());
            if !in_use {
                model.categories.remove(&id);
            }
        }
        Step::DeleteTag(number) => {
            let Some(id) = select(&model.tags, *number) else { return };
            assert_eq!(staff.delete(&format!("/api/tags/{id}/")).await.status, 204);
            model.tags.remove(&id);
            for product in model.products.values_mut() {
                product.tags.remove(&id);
            }
        }
        Step::Read(query) => read(query, model, staff).await,
    }
}

async fn create(input: &ProductInput, model: &mut Model, staff: &TestClient) {
    let Some(category) = select(&model.categories, input.category) else { return };
    let response = staff.post("/api/products/", request_body(input, category)).await;
    assert_eq!(response.status, 201, "{}", response.text());
    let created = response.json();
    let tags = model.tag_ids(staff, &input.tags).await;
    let ProductInput { name, description, cents, .. } = input.clone();
    let created_at = created["created_at"].clone();
    let id = created["id"].as_i64().unwrap();
    model.products.insert(id, Product { name, description, cents, category, tags, created_at });
    assert_eq!(created, model.product(id));
}

async fn replace(number: usize, input: &ProductInput, model: &mut Model, staff: &TestClient) {
    let (Some(id), Some(category)) = (select(&model.products, number), select(&model.categories, input.category))
    else {
        return;
    };
    let response = staff.put(&format!("/api/products/{id}/"), request_body(input, category)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let tags = model.tag_ids(staff, &input.tags).await;
    let created_at = model.products[&id].created_at.clone();
    let ProductInput { name, description, cents, .. } = input.clone();
    model.products.insert(id, Product { name, description, cents, category, tags, created_at });
    assert_eq!(response.json(), model.product(id));
}

async fn update(number: usize, patch: &ProductPatch, model: &mut Model, staff: &TestClient) {
    let Some(id) = select(&model.products, number) else { return };
    let mut body = json!({});
    let product = model.products.get_mut(&id).unwrap();
    if let Some(name) = &patch.name {
        body["name"] = json!(name);
        product.name.clone_from(name);
    }
    if let Some(cents) = patch.cents {
        body["price"] = json!(price(cents));
        product.cents = cents;
    }
    if let Some(category) = patch.category.and_then(|category| select(&model.categories, category)) {
        body["category_name"] = json!(model.categories[&category]);
        product.category = category;
    }
    if let Some(tags) = &patch.tags {
        body["tags"] = tags.iter().map(|tag| tag_name(*tag)).collect();
    }
    let response = staff.patch(&format!("/api/products/{id}/"), body).await;
    assert_eq!(response.status, 200, "{}", response.text());
    if let Some(tags) = &patch.tags {
        model.products.get_mut(&id).unwrap().tags = model.tag_ids(staff, tags).await;
    }
    assert_eq!(response.json(), model.product(id));
}

/// Reads the list that a query selects, page by page when the query has a page size.
async fn read(query: &Query, model: &Model, staff: &TestClient) {
    let mut params = form_urlencoded::Serializer::new(String::new());
    params.extend_pairs(model.requested_ids(query).iter().map(|id| ("id", id.to_string())));
    if !query.fields.is_empty() {
        // the order of the names has no effect
        let names: Vec<_> = query.fields.iter().rev().map(|field| FIELDS[*field]).collect();
        params.append_pair("fields", &names.join(","));
    }
    params.extend_pairs(query.category.map(|name| ("category", category_name(name))));
    params.extend_pairs(query.tags.iter().map(|name| ("tag", tag_name(*name))));
    params.extend_pairs(query.price_min.map(|cents| ("price_min", price(cents))));
    params.extend_pairs(query.price_max.map(|cents| ("price_max", price(cents))));
    params.extend_pairs(query.search.iter().map(|word| ("search", word)));
    let ordering = |(column, descending): (usize, bool)| {
        let minus = if descending { "-" } else { "" };
        ("ordering", format!("{minus}{}", COLUMNS[column]))
    };
    params.extend_pairs(query.ordering.map(ordering));
    params.extend_pairs(query.page_size.map(|size| ("page_size", size.to_string())));
    let (mut path, mut products, mut pages) = (format!("/api/products/?{}", params.finish()), Vec::new(), 0);
    loop {
        let response = staff.get(&path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        products.extend(response.json().as_array().unwrap().clone());
        pages += 1;
        let next = response.header("link").split(", ").find(|link| link.ends_with("rel=\"next\""));
        let Some(next) = next else { break };
        path = next.trim_start_matches('<').split('>').next().unwrap().into();
    }
    let expected: Vec<_> = model.matching_ids(query).into_iter().map(|id| model.selected_fields(id, query)).collect();
    assert_eq!(products, expected, "{path}");
    if let Some(size) = query.page_size {
        assert_eq!(pages, expected.len().div_ceil(size).max(1), "{path}");
    }
}

#[test]
fn catalogue_matches_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: HISTORIES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let app = TestApp::spawn().await;
            let staff = app.create_staff("sam").await;
            let mut model = Model::default();
            set_name(&staff, "/api/categories/", &mut model.categories, None, category_name(0)).await;
            for step in &steps {
                run_step(step, &mut model, &staff).await;
                assert_eq!(staff.get("/api/products/").await.json(), model.list(), "after {step:?}");
            }
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let observed = format!("{HISTORIES} histories of {STEPS} steps, the full list compared after each");
    record_result("the catalogue equals an in-memory model", &observed);
}
