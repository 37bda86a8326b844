//! The catalogue against a model of it in memory: whatever is written in whatever order, the API shows what a few sorted
//! maps say. A history that breaks this is made as short as it can be (proptest).

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

/// What is done; numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Create(Wanted),
    Replace(usize, Wanted),
    Change(usize, Part),
    Delete(usize),
    NameCategory(Option<usize>, usize),
    DeleteCategory(usize),
    NameTag(Option<usize>, usize),
    DeleteTag(usize),
    Look(Wish),
}

#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    description: String,
    cents: u64,
    category: usize,
    tags: BTreeSet<usize>,
}

/// Some fields of a product.
#[derive(Clone, Debug)]
struct Part {
    name: Option<String>,
    cents: Option<u64>,
    category: Option<usize>,
    tags: Option<BTreeSet<usize>>,
}

/// A selection.
#[derive(Clone, Debug)]
struct Wish {
    category: Option<usize>,
    tags: BTreeSet<usize>,
    price_min: Option<u64>,
    price_max: Option<u64>,
    word: Option<String>,
    ordering: Option<(usize, bool)>,
    page_size: Option<usize>,
}

const NAMES: usize = 5;
const COLUMNS: [&str; 3] = ["id", "name", "price"];
const STEPS: usize = 30;
const HISTORIES: u32 = 12;

fn category_name(number: usize) -> String {
    format!("Category {number}")
}

fn tag_name(number: usize) -> String {
    ["new", "eco", "Żółw", "Zebra", "a, \"b\""][number % NAMES].to_owned()
}

fn text() -> impl Strategy<Value = String> {
    // letters of one, two and four bytes, and what SQL, JSON and LIKE take for something else
    "[a-cA-C%_'\"\\\\<é🦓]{1,6}( [a-c]{1,3})?"
}

fn cents() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, Just(999_999_999_999)]
}

fn some_tags() -> impl Strategy<Value = BTreeSet<usize>> {
    btree_set(0..NAMES, 0..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wanted = || {
        (text(), prop_oneof![Just(String::new()), text()], cents(), any::<usize>(), some_tags())
            .prop_map(|(name, description, cents, category, tags)| Wanted { name, description, cents, category, tags })
    };
    let part = (option::of(text()), option::of(cents()), option::of(any::<usize>()), option::of(some_tags()))
        .prop_map(|(name, cents, category, tags)| Part { name, cents, category, tags });
    let wish = (
        option::of(0..NAMES),
        btree_set(0..NAMES, 0..2),
        option::of(cents()),
        option::of(cents()),
        option::of("[a-c%_é🦓]{1,2}"),
        option::of((0..COLUMNS.len(), any::<bool>())),
        option::of(1..4_usize),
    )
        .prop_map(|(category, tags, price_min, price_max, word, ordering, page_size)| Wish {
            category,
            tags,
            price_min,
            price_max,
            word,
            ordering,
            page_size,
        });
    let number = any::<usize>;
    let step = prop_oneof![
        6 => wanted().prop_map(Step::Create),
        2 => (number(), wanted()).prop_map(|(which, wanted)| Step::Replace(which, wanted)),
        3 => (number(), part).prop_map(|(which, part)| Step::Change(which, part)),
        2 => number().prop_map(Step::Delete),
        2 => (option::of(number()), 0..NAMES).prop_map(|(which, name)| Step::NameCategory(which, name)),
        1 => number().prop_map(Step::DeleteCategory),
        2 => (option::of(number()), 0..NAMES).prop_map(|(which, name)| Step::NameTag(which, name)),
        1 => number().prop_map(Step::DeleteTag),
        4 => wish.prop_map(Step::Look),
    ];
    vec(step, STEPS)
}

struct Product {
    name: String,
    description: String,
    cents: u64,
    category: i64,
    tags: BTreeSet<i64>,
    /// As the server said when it was made.
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

/// One of them, by any number.
fn chosen<T>(map: &BTreeMap<i64, T>, number: usize) -> Option<i64> {
    map.keys().nth(number.checked_rem(map.len())?).copied()
}

fn holder(names: &BTreeMap<i64, String>, name: &str) -> Option<i64> {
    names.iter().find(|(_, known)| *known == name).map(|(id, _)| *id)
}

impl Model {
    fn shown(&self, id: i64) -> Value {
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

    fn list(&self) -> Value {
        self.products.keys().map(|id| self.shown(*id)).collect()
    }

    /// What the wish selects, in its order.
    fn selected(&self, wish: &Wish) -> Vec<i64> {
        let wanted = |product: &Product| {
            let tags: BTreeSet<_> = product.tags.iter().map(|tag| self.tags[tag].clone()).collect();
            let text = format!("{}\n{}", product.name, product.description).to_lowercase();
            wish.category.is_none_or(|name| self.categories[&product.category] == category_name(name))
                && wish.tags.iter().all(|name| tags.contains(&tag_name(*name)))
                && wish.price_min.is_none_or(|least| product.cents >= least)
                && wish.price_max.is_none_or(|most| product.cents <= most)
                && wish.word.as_ref().is_none_or(|word| text.contains(&word.to_lowercase()))
        };
        let mut ids: Vec<_> = self.products.iter().filter(|(_, product)| wanted(product)).map(|(id, _)| *id).collect();
        if let Some((column, descending)) = wish.ordering {
            // ties by id, going up
            ids.sort_by(|one, other| {
                let (left, right) = (&self.products[one], &self.products[other]);
                let order = match COLUMNS[column] {
                    "id" => one.cmp(other),
                    "name" => left.name.cmp(&right.name),
                    _ => left.cents.cmp(&right.cents),
                };
                if descending { order.reverse() } else { order }
            });
        }
        ids
    }

    /// The tags' ids; what is not there is made.
    async fn tags_of(&mut self, staff: &TestClient, names: &BTreeSet<usize>) -> BTreeSet<i64> {
        if names.iter().any(|name| holder(&self.tags, &tag_name(*name)).is_none()) {
            // their ids are the database's to choose
            for tag in staff.get("/api/tags/").await.json().as_array().unwrap() {
                self.tags.insert(tag["id"].as_i64().unwrap(), tag["name"].as_str().unwrap().to_owned());
            }
        }
        names.iter().map(|name| holder(&self.tags, &tag_name(*name)).expect("a tag that was made")).collect()
    }
}

fn body(wanted: &Wanted, category: i64) -> Value {
    let tags: Vec<_> = wanted.tags.iter().map(|tag| tag_name(*tag)).collect();
    json!({"name": wanted.name, "description": wanted.description, "price": price(wanted.cents), "category_id": category, "tags": tags})
}

/// One of the two kinds of names that products refer to.
async fn name(staff: &TestClient, path: &str, names: &mut BTreeMap<i64, String>, which: Option<usize>, name: String) {
    let taken = holder(names, &name);
    let (response, id) = match which.and_then(|which| chosen(names, which)) {
        Some(id) => (staff.patch(&format!("{path}{id}/"), json!({"name": name})).await, Some(id)),
        None => (staff.post(path, json!({"name": name})).await, None),
    };
    if taken.is_some() && taken != id {
        assert_eq!(response.status, 400, "{}", response.text());
        return;
    }
    assert_eq!(response.status, if id.is_some() { 200 } else { 201 }, "{}", response.text());
    let id = id.unwrap_or_else(|| response.json()["id"].as_i64().unwrap());
    assert_eq!(response.json(), json!({"id": id, "name": name}));
    names.insert(id, name);
}

async fn take(step: &Step, model: &mut Model, staff: &TestClient) {
    match step {
        Step::Create(wanted) => {
            let Some(category) = chosen(&model.categories, wanted.category) else { return };
            let response = staff.post("/api/products/", body(wanted, category)).await;
            assert_eq!(response.status, 201, "{}", response.text());
            let told = response.json();
            let tags = model.tags_of(staff, &wanted.tags).await;
            let Wanted { name, description, cents, .. } = wanted.clone();
            let created_at = told["created_at"].clone();
            let id = told["id"].as_i64().unwrap();
            model.products.insert(id, Product { name, description, cents, category, tags, created_at });
            assert_eq!(told, model.shown(id));
        }
        Step::Replace(which, wanted) => {
            let (Some(id), Some(category)) =
                (chosen(&model.products, *which), chosen(&model.categories, wanted.category))
            else {
                return;
            };
            let response = staff.put(&format!("/api/products/{id}/"), body(wanted, category)).await;
            assert_eq!(response.status, 200, "{}", response.text());
            let tags = model.tags_of(staff, &wanted.tags).await;
            let created_at = model.products[&id].created_at.clone();
            let Wanted { name, description, cents, .. } = wanted.clone();
            model.products.insert(id, Product { name, description, cents, category, tags, created_at });
            assert_eq!(response.json(), model.shown(id));
        }
        Step::Change(which, part) => {
            let Some(id) = chosen(&model.products, *which) else { return };
            let mut body = json!({});
            if let Some(name) = &part.name {
                body["name"] = json!(name);
                model.products.get_mut(&id).unwrap().name.clone_from(name);
            }
            if let Some(cents) = part.cents {
                body["price"] = json!(price(cents));
                model.products.get_mut(&id).unwrap().cents = cents;
            }
            if let Some(category) = part.category.and_then(|category| chosen(&model.categories, category)) {
                body["category_name"] = json!(model.categories[&category]);
                model.products.get_mut(&id).unwrap().category = category;
            }
            if let Some(tags) = &part.tags {
                body["tags"] = tags.iter().map(|tag| tag_name(*tag)).collect();
            }
            let response = staff.patch(&format!("/api/products/{id}/"), body).await;
            assert_eq!(response.status, 200, "{}", response.text());
            if let Some(tags) = &part.tags {
                model.products.get_mut(&id).unwrap().tags = model.tags_of(staff, tags).await;
            }
            assert_eq!(response.json(), model.shown(id));
        }
        Step::Delete(which) => {
            let Some(id) = chosen(&model.products, *which) else { return };
            let path = format!("/api/products/{id}/");
            assert_eq!(staff.delete(&path).await.status, 204);
            model.products.remove(&id);
            for method in [Method::GET, Method::DELETE] {
                assert_eq!(staff.send(method, &path, None).await.status, 404);
            }
        }
        Step::NameCategory(which, number) => {
            name(staff, "/api/categories/", &mut model.categories, *which, category_name(*number)).await;
        }
        Step::NameTag(which, number) => name(staff, "/api/tags/", &mut model.tags, *which, tag_name(*number)).await,
        Step::DeleteCategory(which) => {
            let Some(id) = chosen(&model.categories, *which) else { return };
            let in_use = model.products.values().any(|product| product.category == id);
            let response = staff.delete(&format!("/api/categories/{id}/")).await;
            assert_eq!(response.status, if in_use { 409 } else { 204 }, "{}", response.text());
            if !in_use {
                model.categories.remove(&id);
            }
        }
        Step::DeleteTag(which) => {
            let Some(id) = chosen(&model.tags, *which) else { return };
            assert_eq!(staff.delete(&format!("/api/tags/{id}/")).await.status, 204);
            model.tags.remove(&id);
            for product in model.products.values_mut() {
                product.tags.remove(&id);
            }
        }
        Step::Look(wish) => look(wish, model, staff).await,
    }
}

/// Reads what a wish selects: in one piece, or page by page to the end.
async fn look(wish: &Wish, model: &Model, staff: &TestClient) {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(wish.category.map(|name| ("category", category_name(name))));
    query.extend_pairs(wish.tags.iter().map(|name| ("tag", tag_name(*name))));
    query.extend_pairs(wish.price_min.map(|cents| ("price_min", price(cents))));
    query.extend_pairs(wish.price_max.map(|cents| ("price_max", price(cents))));
    query.extend_pairs(wish.word.iter().map(|word| ("search", word)));
    let minus = |descending| if descending { "-" } else { "" };
    query.extend_pairs(wish.ordering.map(|(column, down)| ("ordering", format!("{}{}", minus(down), COLUMNS[column]))));
    query.extend_pairs(wish.page_size.map(|size| ("page_size", size.to_string())));
    let (mut path, mut shown, mut pages) = (format!("/api/products/?{}", query.finish()), Vec::new(), 0);
    loop {
        let response = staff.get(&path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        shown.extend(response.json().as_array().unwrap().clone());
        pages += 1;
        let next = response.header("link").split(", ").find(|link| link.ends_with("rel=\"next\""));
        let Some(next) = next else { break };
        path = next.trim_start_matches('<').split('>').next().unwrap().into();
    }
    let expected: Vec<_> = model.selected(wish).into_iter().map(|id| model.shown(id)).collect();
    assert_eq!(shown, expected, "{path}");
    if let Some(size) = wish.page_size {
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
            name(&staff, "/api/categories/", &mut model.categories, None, category_name(0)).await;
            for step in &steps {
                take(step, &mut model, &staff).await;
                assert_eq!(staff.get("/api/products/").await.json(), model.list(), "after {step:?}");
            }
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let numbers = format!("{HISTORIES} histories of {STEPS} steps, the whole list compared after each");
    record_result("the catalogue is what a model of it in memory says", &numbers);
}
