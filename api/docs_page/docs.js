"use strict";
// Renders /openapi.json. Text from the document only ever becomes text, never markup.

const DEPTH_MAX = 6; // levels of nested schemas that are written out

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

// What stands between backticks is code.
function inline(text) {
  return text.split("`").map((piece, at) => (at % 2 ? make("code", {}, piece) : piece));
}

function prose(text) {
  return text.split(/\n\n+/).map((part) => make("p", {}, ...inline(part)));
}

// A long path may go on in the next line after a slash.
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]);
}

function resolve(schema, all) {
  return schema.$ref ? all[schema.$ref.split("/").pop()] : schema;
}

function kindOf(given, all) {
  if (given.$ref) return given.$ref.split("/").pop();
  if (given.enum) return given.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (given.anyOf) return given.anyOf.map((part) => kindOf(part, all)).join(" | ");
  if (given.type === "array") return `${given.items ? kindOf(given.items, all) : "any"}[]`;
  const low = given.minimum ?? given.exclusiveMinimum;
  const range = low !== undefined || given.maximum !== undefined
    ? ` ${low ?? ""}…${given.maximum ?? ""}` : "";
  return (given.format || given.type || "any") + range;
}

// A schema as an outline of JSON, with types where values would stand.
function outline(given, all, indent = "", depth = 0) {
  const schema = resolve(given, all) || {};
  const inner = indent + "  ";
  if (depth > DEPTH_MAX) return "…";
  if (schema.anyOf) return schema.anyOf.map((one) => outline(one, all, indent, depth)).join(" | ");
  if (schema.type === "array") {
    const item = schema.items ? outline(schema.items, all, indent, depth + 1) : "any";
    return `[${item}, …]`;
  }
  if (schema.properties) {
    const must = schema.required || [];
    const lines = Object.entries(schema.properties).map(([name, kind]) => {
      const mark = must.includes(name) || !("default" in kind) ? "" : "?";
      return `${inner}${name}${mark}: ${outline(kind, all, inner, depth + 1)}`;
    });
    return `{\n${lines.join("\n")}\n${indent}}`;
  }
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return `{ name: ${outline(schema.additionalProperties, all, indent, depth + 1)}, … }`;
  }
  return kindOf(schema, all);
}

function example(given, all, depth = 0) {
  const schema = resolve(given, all) || {};
  if (schema.examples) return schema.examples[0];
  if ("default" in schema) return schema.default;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return example(schema.anyOf[0], all, depth);
  if (schema.type === "array") return depth > 3 ? [] : [example(schema.items || {}, all, depth + 1)];
  if (schema.properties) {
    const must = schema.required || [];
    const entries = Object.entries(schema.properties).filter(([name]) => must.includes(name));
    return Object.fromEntries(entries.map(([name, kind]) => [name, example(kind, all, depth + 1)]));
  }
  if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 0;
  return schema.type === "boolean" ? false : schema.type === "object" ? {} : "";
}

function parameterRows(operation, all, inputs) {
  return (operation.parameters || []).map((parameter) => {
    const input = make("input", {
      "aria-label": parameter.name,
      placeholder: parameter.schema.default === undefined ? "" : `${parameter.schema.default}`,
    });
    inputs.push({ parameter, input });
    const name = make("code", { className: parameter.required ? "must" : "" }, parameter.name);
    return make("tr", {},
      make("td", {}, name, make("br"), make("small", {}, parameter.in)),
      make("td", { className: "kind" }, kindOf(parameter.schema, all), make("br"),
        ...inline(parameter.description || "")),
      make("td", {}, input));
  });
}

async function send(path, method, inputs, body, key, shown) {
  const query = new URLSearchParams();
  let url = path;
  for (const { parameter, input } of inputs) {
    if (parameter.in === "path") {
      url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    } else if (input.value) query.set(parameter.name, input.value);
  }
  const text = query.toString();
  const headers = key ? { "X-API-Key": key } : {};
  if (body !== null) headers["Content-Type"] = "application/json";
  const began = performance.now();
  shown.status.textContent = "…";
  try {
    const answer = await fetch(text ? `${url}?${text}` : url,
      { method: method.toUpperCase(), headers, body });
    const content = await answer.text();
    const took = Math.round(performance.now() - began);
    shown.status.textContent = `${answer.status} ${answer.statusText} in ${took} ms`;
    try {
      shown.output.textContent = JSON.stringify(JSON.parse(content), null, 2);
    } catch {
      shown.output.textContent = content;
    }
  } catch (error) {
    shown.status.textContent = `not sent: ${error.message}`;
  }
  shown.output.hidden = false;
}

function routeInside(path, method, operation, all) {
  const inputs = [];
  const inside = make("div", { className: "inside" }, ...prose(operation.description || ""));
  const rows = parameterRows(operation, all, inputs);
  if (rows.length) inside.append(make("h3", {}, "Parameters"), make("table", {}, ...rows));
  let body = null;
  if (operation.requestBody) {
    const schema = operation.requestBody.content["application/json"].schema;
    body = make("textarea", { "aria-label": "body", spellcheck: false });
    body.value = JSON.stringify(example(schema, all), null, 2);
    inside.append(make("h3", {}, "Body"), make("pre", {}, outline(schema, all)), body);
  }
  const shown = { status: make("span", { className: "status" }), output: make("pre") };
  shown.output.hidden = true;
  const button = make("button", { type: "button" }, "Send");
  button.addEventListener("click", () => {
    const key = document.getElementById("key").value;
    send(path, method, inputs, body && body.value, key, shown);
  });
  inside.append(button, shown.status, shown.output, make("h3", {}, "Answers"));
  const answers = Object.entries(operation.responses).map(([status, response]) => {
    const own = Object.entries(response.content).find(([kind]) => !kind.includes("problem"));
    const said = own ? make("pre", {}, outline(own[1].schema, all)) : "problem";
    return make("tr", {}, make("td", {}, make("code", {}, status)),
      make("td", {}, response.description), make("td", {}, said));
  });
  inside.append(make("table", {}, ...answers));
  return inside;
}

function routeCard(path, method, operation, all) {
  const summary = make("summary", {},
    make("span", { className: `method ${method}` }, method.toUpperCase()),
    make("span", { className: "path" }, path),
    make("span", { className: "said" }, ...inline(operation.summary)),
    make("span", { className: "scope" }, operation["x-scope"] || "public"));
  const card = make("details", { className: "route", id: operation.operationId }, summary);
  card.addEventListener("toggle", () => {
    if (card.open && card.children.length === 1) {
      card.append(routeInside(path, method, operation, all));
    }
  });
  return card;
}

function show(document_) {
  const all = document_.components.schemas;
  const routes = document.getElementById("routes");
  const contents = document.getElementById("contents");
  document.getElementById("version").textContent = `API ${document_.info.version}`;
  document.getElementById("about").replaceChildren(...prose(document_.info.description));
  routes.replaceChildren();
  for (const { name } of document_.tags) {
    routes.append(make("h2", {}, name));
    contents.append(make("strong", {}, name));
    for (const [path, item] of Object.entries(document_.paths)) {
      for (const [method, operation] of Object.entries(item)) {
        if (!operation.tags.includes(name)) continue;
        const card = routeCard(path, method, operation, all);
        const link = make("a", { href: `#${operation.operationId}` },
          make("span", { className: `method ${method}` }, method.toUpperCase()),
          make("span", {}, ...breakable(path)));
        link.addEventListener("click", () => { card.open = true; });
        card.dataset.words = link.dataset.words = `${method} ${path} ${operation.summary}`;
        routes.append(card);
        contents.append(link);
      }
    }
  }
  const asked = document.getElementById(location.hash.slice(1));
  if (asked) {
    asked.open = true;
    asked.scrollIntoView();
  }
}

document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const node of document.querySelectorAll("[data-words]")) {
    node.hidden = !node.dataset.words.toLowerCase().includes(wanted);
  }
});

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then(show)
  .catch((error) => {
    document.getElementById("routes").textContent = `cannot read /openapi.json: ${error.message}`;
  });
