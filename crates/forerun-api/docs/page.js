// Shows /openapi.json, and asks what can be asked without harm. Texts become text nodes, never markup.
"use strict";

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.oneOf) return schema.oneOf.map(kind).join(" or ");
  if (schema.items) return kind(schema.items) + "[]";
  return [].concat(schema.type || "object").join(" or ");
}

function fields(schemas, schema) {
  const shown = schema && schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
  if (!shown || !shown.properties) return null;
  const table = element("table");
  for (const [name, field] of Object.entries(shown.properties)) {
    table.append(element("tr", {}, element("td", {}, element("code", {}, name)), element("td", {}, kind(field)),
      element("td", {}, field.description || "")));
  }
  return table;
}

async function ask(path, output) {
  const token = document.getElementById("token").value.trim();
  output.textContent = "asking ...";
  try {
    const answer = await fetch(path, { headers: token ? { Authorization: "Bearer " + token } : {} });
    const text = await answer.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* it is no JSON, and is shown as it is */ }
    output.textContent = answer.status + " " + answer.statusText + "\n" + shown.slice(0, 20000);
  } catch (error) {
    output.textContent = String(error);
  }
}

function operation(schemas, path, method, said) {
  const inside = element("div", {}, element("p", {}, said.description || ""));
  for (const parameter of said.parameters || []) {
    inside.append(element("p", {}, element("code", {}, parameter.name), " " + kind(parameter.schema) + " " +
      (parameter.description || "")));
  }
  const sent = said.requestBody && said.requestBody.content["application/json"];
  if (sent) inside.append(element("p", {}, "Body: " + kind(sent.schema)), fields(schemas, sent.schema) || "");
  const content = said.responses["200"] && said.responses["200"].content;
  const answered = content && content["application/json"];
  if (answered) inside.append(element("p", {}, "Answer: " + kind(answered.schema)), fields(schemas, answered.schema) || "");
  if (method === "get" && answered) {
    const where = element("input", { "aria-label": "Path to ask", value: path });
    const output = element("pre", { "aria-live": "polite", hidden: "" });
    const button = element("button", { type: "button" }, "Ask");
    button.addEventListener("click", () => { output.hidden = false; ask(where.value, output); });
    inside.append(element("p", {}, where, " ", button), output);
  }
  const summary = element("summary", {}, element("span", { class: "method" }, method.toUpperCase()),
    element("code", {}, path), " " + (said.summary || ""));
  return element("details", {}, summary, inside);
}

async function show() {
  const about = document.getElementById("about");
  try {
    const said = await (await fetch("/openapi.json")).json();
    about.textContent = said.info.description;
    const list = document.getElementById("operations");
    for (const [path, operations] of Object.entries(said.paths)) {
      for (const [method, one] of Object.entries(operations)) {
        list.append(operation(said.components.schemas, path, method, one));
      }
    }
  } catch (error) {
    about.textContent = "The description cannot be read: " + error;
  }
}

show();
